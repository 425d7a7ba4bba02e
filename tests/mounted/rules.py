#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""rules.py MOUNTPOINT [readonly]: who may do what, and which error a call gives. Needs root.

"readonly": the mountpoint has what an earlier run left, and must not be changed.
"""
import errno
import os
import resource
import shutil
import socket
import stat
import sys
from posixlib import (ALICE, BOB, EXCHANGE, NOREPLACE, TEAM, as_user, bits, fails, fallocate, get,
                      linkat, opened, own, put, raw, renameat2)


def make(path, flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o644):
    os.close(os.open(path, flags, mode))


def bind(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


# What takes a path: those that find something there, and those that make it.
FINDING = {
    "stat": os.stat,
    "lstat": os.lstat,
    "access": lambda p: os.stat(p) and os.access(p, os.F_OK),
    "chmod": lambda p: os.chmod(p, 0o700),
    "chown": lambda p: os.chown(p, 0, 0),
    "lchown": lambda p: os.lchown(p, 0, 0),
    "utime": lambda p: os.utime(p, (1, 1)),
    "lutime": lambda p: os.utime(p, (1, 1), follow_symlinks=False),
    "open": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_NONBLOCK)),
    "open to write": lambda p: os.close(os.open(p, os.O_WRONLY)),
    "truncate": lambda p: os.truncate(p, 0),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "rename": lambda p: os.rename(p, "moved"),
    "link": lambda p: os.link(p, "linked"),
    "chdir": os.chdir,
    "list": os.listdir,
    "readlink": os.readlink,
    "getxattr": lambda p: os.getxattr(p, "user.a"),
    "setxattr": lambda p: os.setxattr(p, "user.a", b""),
    "listxattr": os.listxattr,
    "removexattr": lambda p: os.removexattr(p, "user.a"),
    "statvfs": os.statvfs,
}
MAKING = {
    "create": make,
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda p: os.mknod(p, stat.S_IFREG | 0o644),
    "symlink": lambda p: os.symlink("target", p),
    "link to": lambda p: os.link("file", p),
    "rename to": lambda p: renameat2("spare", p, NOREPLACE),
}


def some_files():
    put("file", b"file")
    put("spare", b"spare")
    os.mkdir("dir")
    os.symlink("loop", "loop")
    os.symlink("none", "dangling")
    os.mkfifo("fifo")
    os.mknod("device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    bind("socket")


def every_call_has_the_error_of_its_path():
    some_files()
    os.mkdir("closed", 0o600)
    put("closed/x")
    long = "n" * 256
    deep = "dir/" + "./" * 2045 + "xx"
    assert len(deep) == 4096
    for path, code in (("none/x", errno.ENOENT), ("", errno.ENOENT), ("file/x", errno.ENOTDIR),
                       ("fifo/x", errno.ENOTDIR), ("loop/x", errno.ELOOP),
                       ("dangling/x", errno.ENOENT), (long, errno.ENAMETOOLONG),
                       ("dir/" + long, errno.ENAMETOOLONG), (deep, errno.ENAMETOOLONG),
                       (long + "/x", errno.ENAMETOOLONG)):
        for name, call in (FINDING | MAKING).items():
            try:
                fails(code, call, path)
            except AssertionError as error:
                raise AssertionError(f"{name} of {path[:20]!r}: {error}") from None

    def without_search():
        for call in (FINDING | MAKING).values():
            fails(errno.EACCES, call, "closed/x")
            fails(errno.EACCES, call, "closed/new")

    own("closed", ALICE)
    own(".", ALICE)
    os.link("file", "closed/file")
    as_user(ALICE, without_search)
    as_user(BOB, without_search)


def longest_names_and_paths():
    name = "n" * 255
    put("file", b"file")
    for call in MAKING.values():
        put("spare")
        call(name)
        os.lstat(name)
        os.rename(name, "m" * 255)
        shutil.rmtree("m" * 255) if os.path.isdir("m" * 255) else os.unlink("m" * 255)
    os.mkdir("dir")
    path = "dir/" + "./" * 2045 + "x"
    assert len(path) == 4095
    for call in MAKING.values():
        put("spare")
        call(path)
        os.lstat("dir/x")
        os.rmdir(path) if os.path.isdir("dir/x") else os.unlink(path)
    os.symlink("t" * 4095, "long")
    assert os.readlink("long") == "t" * 4095
    fails(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "longer")
    fails(errno.ENOENT, os.symlink, "", "empty")
    # Deeper than any path can say.
    for _ in range(30):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    put("bottom", b"deep")
    assert get("bottom") == b"deep" and "bottom" in os.listdir(".")
    for _ in range(30):
        os.chdir("..")
    assert "long" in os.listdir(".")


def what_is_there_already():
    some_files()
    for there in "file", "dir", "fifo", "device", "socket", "loop", "dangling", ".", "..":
        for call in MAKING.values():
            fails(errno.EEXIST, call, there)
    for call in FINDING.values():
        fails(errno.ENOENT, call, "none")


def wrong_types():
    some_files()
    write, create = os.O_WRONLY, os.O_WRONLY | os.O_CREAT
    for code, call, *args in (
            (errno.EISDIR, os.unlink, "dir"),
            (errno.EISDIR, os.truncate, "dir", 0),
            (errno.EISDIR, os.open, "dir", write),
            (errno.EISDIR, os.open, "dir", create),
            (errno.EISDIR, os.open, "new/", create),
            (errno.EISDIR, os.rename, "file", "dir"),
            (errno.ENOTDIR, os.rename, "dir", "file"),
            (errno.ENOTDIR, os.rename, "dir", "fifo"),
            (errno.ENOTDIR, os.rmdir, "file"),
            (errno.ENOTDIR, os.rmdir, "dangling"),
            (errno.ENOTDIR, os.listdir, "file"),
            (errno.ENOTDIR, os.open, "file", os.O_DIRECTORY),
            (errno.ENOTDIR, os.stat, "file/"),
            (errno.ENOTDIR, os.unlink, "file/"),
            (errno.ENOTDIR, os.rename, "file/", "x"),
            (errno.ENOTDIR, os.rename, "file", "x/"),
            (errno.ENOENT, os.link, "file", "x/"),
            (errno.ENOENT, os.symlink, "file", "x/"),
            (errno.EPERM, os.link, "dir", "x"),
            (errno.EINVAL, os.readlink, "file"),
            (errno.EINVAL, os.readlink, "dir"),
            (errno.EINVAL, os.truncate, "fifo", 0),
            (errno.EINVAL, os.truncate, "file", -1),
            (errno.ELOOP, os.open, "dangling", os.O_RDONLY | os.O_NOFOLLOW),
            (errno.ELOOP, os.stat, "loop"),
            (errno.ELOOP, os.chmod, "loop", 0o600),
            (errno.ELOOP, os.truncate, "loop", 0),
            (errno.ENXIO, os.open, "fifo", os.O_WRONLY | os.O_NONBLOCK),
            (errno.ENXIO, os.open, "socket", os.O_RDONLY),
            (errno.EINVAL, os.rmdir, "dir/."),
            (errno.ENOTEMPTY, os.rmdir, "dir/.."),
            (errno.EBUSY, os.rename, "dir/.", "x"),
            (errno.EBUSY, os.rename, "file", "dir/.."),
            (errno.EINVAL, os.rename, "dir", "dir/x"),
            (errno.EINVAL, renameat2, "dir", "x", NOREPLACE | EXCHANGE),
            (errno.ENOENT, renameat2, "dir", "x", EXCHANGE),
            (errno.EPERM, os.mknod, "x", stat.S_IFDIR | 0o755),
            (errno.EINVAL, os.mknod, "x", stat.S_IFLNK | 0o755)):
        fails(code, call, *args)
    os.mkdir("newdir/")
    os.rename("newdir/", "other/")
    os.mkdir("dir/sub")
    put("dir/sub/x")
    fails(errno.ENOTEMPTY, os.rename, "other", "dir")
    fails(errno.ENOTEMPTY, os.rename, "dir/sub", "dir")
    fails(errno.ENOTEMPTY, os.rmdir, "dir")
    fails(errno.EINVAL, renameat2, "dir", "dir/sub", EXCHANGE)
    fails(errno.EINVAL, renameat2, "dir/sub", "dir", EXCHANGE)


def a_running_program_and_limits():
    shutil.copy(shutil.which("sleep"), "program")
    pid = os.posix_spawn("./program", ["program", "1000"], {})
    try:
        fails(errno.ETXTBSY, os.open, "program", os.O_WRONLY)
        fails(errno.ETXTBSY, os.truncate, "program", 0)
        os.unlink("program")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    put("file")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        os.truncate("file", 1000)
        fails(errno.EFBIG, os.truncate, "file", 1001)
        with opened("file", os.O_WRONLY) as fd:
            assert os.pwrite(fd, b"x" * 20, 990) == 10
            fails(errno.EFBIG, os.pwrite, fd, b"x", 1000)
            fails(errno.EFBIG, fallocate, fd, 0, 0, 1001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- Permissions ----

def each_class_has_its_bits():
    own(".", ALICE, 0o755)
    for mode in range(0o1000):
        if mode & 0o7 not in (mode >> 3 & 0o7, mode >> 6 & 0o7, 0o7 ^ mode >> 6 & 0o7):
            continue  # the classes are independent: a part of all will do
        put(f"f{mode}", b"", mode)
        os.chown(f"f{mode}", ALICE, TEAM)

    def tries(shift):
        for name in os.listdir("."):
            allowed = int(name[1:]) >> shift & 0o7
            for flags, need in (os.O_RDONLY, 4), (os.O_WRONLY, 2), (os.O_RDWR, 6), (
                    os.O_RDONLY | os.O_TRUNC, 6 if allowed & 4 else 4):
                if allowed & need == need or (flags & os.O_TRUNC and allowed & 6 == 6):
                    os.close(os.open(name, flags))
                else:
                    fails(errno.EACCES, os.open, name, flags)
            assert os.access(name, os.X_OK) == bool(allowed & 1)
            if allowed & 2:
                os.truncate(name, 0)
            else:
                fails(errno.EACCES, os.truncate, name, 0)

    as_user(ALICE, tries, 6)
    as_user(BOB, tries, 3, groups=(TEAM,))
    as_user(BOB, tries, 0)
    for name in os.listdir("."):  # and none for root
        os.close(os.open(name, os.O_RDWR))


def directories_need_search_and_write():
    put("file", b"", 0o666)
    put("spare", b"", 0o666)
    for mode in range(8):
        os.mkdir(f"d{mode}")
        put(f"d{mode}/x", b"", 0o666)
        os.mkdir(f"d{mode}/sub", 0o777)
        own(f"d{mode}/x", BOB)
        own(f"d{mode}/sub", BOB, 0o777)
        os.chmod(f"d{mode}", 0o770 | mode)
    own(".", BOB, 0o777)
    own("file", BOB)
    own("spare", BOB)

    def tries():
        for mode in range(8):
            d = f"d{mode}"
            if mode & 4:
                os.listdir(d)
            else:
                fails(errno.EACCES, os.listdir, d)
            if mode & 1:
                os.stat(f"{d}/x")
            else:
                fails(errno.EACCES, os.stat, f"{d}/x")
            for call in MAKING.values():
                if not os.path.exists("spare"):
                    put("spare")
                if mode & 3 == 3:
                    call(f"{d}/new")
                    os.rename(f"{d}/new", f"{d}/new2")
                    if os.path.isdir(f"{d}/new2"):
                        os.rmdir(f"{d}/new2")
                    else:
                        os.unlink(f"{d}/new2")
                else:
                    fails(errno.EACCES, call, f"{d}/new")
            if mode & 3 != 3:
                fails(errno.EACCES, os.unlink, f"{d}/x")
                fails(errno.EACCES, os.rmdir, f"{d}/sub")
                fails(errno.EACCES, os.rename, f"{d}/x", "moved")
                fails(errno.EACCES, os.rename, "spare", f"{d}/x")
                fails(errno.EACCES, renameat2, f"{d}/x", "spare", EXCHANGE)

    as_user(BOB, tries)

    def others_directory():  # to move it, its ".." has to be changed
        fails(errno.EACCES, os.rename, "mine/dir", "dir")
        os.rename("mine/dir", "mine/renamed")

    os.mkdir("mine")
    os.mkdir("mine/dir", 0o755)
    own("mine", BOB)
    as_user(BOB, others_directory)


def only_owners_change_attributes():
    put("file", b"data", 0o666)
    own("file", ALICE)

    def other():
        fails(errno.EPERM, os.chmod, "file", 0o777)
        fails(errno.EPERM, os.chown, "file", BOB, -1)
        fails(errno.EPERM, os.chown, "file", -1, BOB)
        fails(errno.EPERM, os.utime, "file", (1, 1))
        os.utime("file")  # to now: who may write
        fails(errno.EPERM, os.open, "file", os.O_RDONLY | os.O_NOATIME)
        fails(errno.EPERM, os.setxattr, "file", "trusted.a", b"")
        os.setxattr("file", "user.a", b"")  # contents, as it were

    def owner():
        os.chmod("file", 0o640)
        os.utime("file", (1, 1))
        fails(errno.EPERM, os.chown, "file", BOB, -1)
        fails(errno.EPERM, os.chown, "file", -1, BOB)
        os.chown("file", ALICE, TEAM)
        os.chown("file", -1, ALICE)
        os.close(os.open("file", os.O_RDONLY | os.O_NOATIME))

    def neither():
        fails(errno.EACCES, os.utime, "file")
        fails(errno.EACCES, os.setxattr, "file", "user.a", b"")
        fails(errno.EACCES, os.getxattr, "file", "user.a")

    as_user(BOB, other)
    as_user(ALICE, owner, groups=(TEAM,))
    as_user(BOB, neither)


def who_owns_what_is_made():
    os.mkdir("plain")
    os.mkdir("team")
    os.chown("team", 0, TEAM)
    os.chmod("plain", 0o777)
    os.chmod("team", 0o2777)

    def makes():
        os.umask(0o027)
        for d, gid in ("plain", ALICE), ("team", TEAM):
            put(f"{d}/file")
            os.mkdir(f"{d}/dir", 0o777)
            os.symlink("x", f"{d}/soft")
            os.mkfifo(f"{d}/fifo", 0o666)
            for name in "file", "dir", "soft", "fifo":
                found = os.lstat(f"{d}/{name}")
                assert (found.st_uid, found.st_gid) == (ALICE, gid), (d, name)
            assert bits(f"{d}/file") == 0o640 and bits(f"{d}/fifo") == 0o640
        assert bits("plain/dir") == 0o750 and bits("team/dir") == 0o2750
        make("team/sgid", mode=0o2775)  # not of that group: it may not be made set-group-ID
        assert bits("team/sgid") == 0o750
        fails(errno.EPERM, os.mknod, "plain/device", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    as_user(ALICE, makes)


def sticky_directories():
    cases = [(d, f) for d in (ALICE, BOB) for f in (ALICE, BOB)]
    for d, f in cases:
        name = f"{d}-{f}"
        os.mkdir(name)
        for what in "a", "b", "over", "left":
            put(f"{name}/{what}")
            own(f"{name}/{what}", f)
        os.mkdir(f"{name}/dir")
        own(f"{name}/dir", f)
        own(name, d, 0o1777)
    own(".", ALICE, 0o777)

    def alice():
        for d, f in cases:
            name = f"{d}-{f}"
            put(f"{name}/new")
            put("spare")
            if ALICE in (d, f):
                os.unlink(f"{name}/a")
                os.rename(f"{name}/b", f"{name}/c")
                os.rename("spare", f"{name}/over")
                os.rmdir(f"{name}/dir")
                continue
            fails(errno.EPERM, os.unlink, f"{name}/a")
            fails(errno.EPERM, os.rename, f"{name}/b", f"{name}/c")
            fails(errno.EPERM, os.rename, "spare", f"{name}/over")
            fails(errno.EPERM, renameat2, "spare", f"{name}/over", EXCHANGE)
            fails(errno.EPERM, os.rmdir, f"{name}/dir")
            os.unlink(f"{name}/new")

    as_user(ALICE, alice)
    for d, f in cases:
        os.unlink(f"{d}-{f}/left")  # root may


# ---- Set-user-ID, set-group-ID, capabilities ----

CAPABILITY = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


def changes(path):
    """Ways to change contents, by name."""
    with opened(path, os.O_RDWR) as fd, opened("source") as source:
        yield "write", lambda: os.pwrite(fd, b"x", 0)
        yield "ftruncate", lambda: os.ftruncate(fd, 1)
        yield "truncate", lambda: os.truncate(path, 5000)
        yield "truncate to zero", lambda: os.truncate(path, 0)
        yield "O_TRUNC", lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        yield "fallocate", lambda: fallocate(fd, 0, 0, 9000)
        yield "punch", lambda: fallocate(fd, 3, 0, 1000)
        yield "copy", lambda: os.copy_file_range(source, fd, 6, 0, 0)


def suid_goes_when_others_write():
    put("source", b"source")
    for mode in 0o6777, 0o4766, 0o2777:
        put("file", b"contents", mode)

        def writes(mode=mode):
            for name, change in changes("file"):
                as_root_chmod(mode)
                change()
                assert bits("file") == mode & 0o777, (name, oct(bits("file")))

        def as_root_chmod(mode):  # a child that still is root, for one that is not
            os.write(ask[1], mode.to_bytes(2, "little"))
            os.read(answer[0], 1)

        ask, answer = os.pipe(), os.pipe()
        helper = os.fork()
        if helper == 0:
            os.close(ask[1])
            while word := os.read(ask[0], 2):
                os.chmod("file", int.from_bytes(word, "little"))
                os.write(answer[1], b".")
            os._exit(0)
        os.close(ask[0])
        try:
            as_user(ALICE, writes)
        finally:
            os.close(ask[1])
            os.waitpid(helper, 0)
        for name, change in changes("file"):  # root's writes leave them
            os.chmod("file", mode)
            change()
            assert bits("file") == mode, (name, oct(bits("file")))


def suid_goes_with_the_owner():
    for mode, after in (0o6755, 0o755), (0o2644, 0o2644), (0o6644, 0o2644), (0o4755, 0o755):
        put("file", b"", mode)
        os.chown("file", ALICE, ALICE)
        assert bits("file") == after, oct(bits("file"))
        os.chmod("file", mode)
        as_user(ALICE, os.chown, "file", -1, TEAM, groups=(ALICE, TEAM))
        assert bits("file") == after, oct(bits("file"))
    os.mkdir("dir")
    os.chmod("dir", 0o6755)
    os.chown("dir", ALICE, ALICE)
    assert bits("dir") == 0o6755
    put("file", b"", 0o644)
    os.chown("file", ALICE, TEAM)
    as_user(ALICE, os.chmod, "file", 0o2755)  # not of that group
    assert bits("file") == 0o755
    as_user(ALICE, os.chmod, "file", 0o2755, groups=(TEAM,))
    assert bits("file") == 0o2755


def capabilities_go_with_the_contents():
    put("source", b"source")
    put("file", b"contents", 0o666)

    def set_and(change, name):
        os.setxattr("file", "security.capability", CAPABILITY)
        os.setxattr("file", "user.stays", b"")
        assert os.getxattr("file", "security.capability") == CAPABILITY
        change()
        fails(errno.ENODATA, os.getxattr, "file", "security.capability")
        assert os.listxattr("file") == ["user.stays"], name

    for name, change in changes("file"):
        set_and(change, name)
    set_and(lambda: os.chown("file", ALICE, ALICE), "chown")

    def other(wanted):
        for name, change in changes("file"):
            if name == wanted:
                change()

    for name in "write", "truncate", "truncate to zero", "copy", "fallocate":
        set_and(lambda name=name: as_user(BOB, other, name), name)
    os.setxattr("file", "security.capability", CAPABILITY)
    os.chmod("file", 0o755)
    os.utime("file", (1, 1))
    os.rename("file", "renamed")
    assert os.getxattr("renamed", "security.capability") == CAPABILITY


def readonly(root):
    os.chdir(os.path.join(root, "every_call_has_the_error_of_its_path"))
    reading = {"stat", "lstat", "access", "open", "list", "readlink", "getxattr", "listxattr",
               "statvfs", "chdir"}
    for name, call in FINDING.items():
        if name not in reading:
            fails(errno.EROFS, call, "dir" if name == "rmdir" else "file")
    for name, call in MAKING.items():
        fails(errno.EROFS, call, "new")
        fails(errno.EROFS if name == "rename to" else errno.EEXIST, call, "file")
    fails(errno.EROFS, os.open, ".", os.O_TMPFILE | os.O_RDWR)
    assert get("file") == b"file" and not os.access("file", os.W_OK)


TESTS = (every_call_has_the_error_of_its_path, longest_names_and_paths, what_is_there_already,
         wrong_types, a_running_program_and_limits, each_class_has_its_bits,
         directories_need_search_and_write, only_owners_change_attributes, who_owns_what_is_made,
         sticky_directories, suid_goes_when_others_write, suid_goes_with_the_owner,
         capabilities_go_with_the_contents)

if __name__ == "__main__":
    import posixlib
    if sys.argv[2:] == ["readonly"]:
        readonly(sys.argv[1])
    else:
        posixlib.run(sys.argv[1], TESTS)
