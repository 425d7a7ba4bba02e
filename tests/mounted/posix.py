#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""posix.py MOUNTPOINT [again]: calls on a mounted directory and what they must give.

Each function is a test with a directory of its own. With "again" the directories are those of a
run before, and what is kept over a remount is looked at.
"""
import ctypes
import errno
import mmap
import os
import stat
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, NOREPLACE, EXCHANGE = -100, 1, 2
KEEP_SIZE, PUNCH_HOLE = 1, 2


def renameat2(old, new, flags):
    if libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def fallocate(fd, mode, offset, length):
    number = ctypes.c_int64
    if libc.fallocate(fd, mode, number(offset), number(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def fails(code, call, *args, **kw):
    try:
        call(*args, **kw)
    except OSError as error:
        assert error.errno == code, f"{errno.errorcode[error.errno]}, not {errno.errorcode[code]}"
        return
    raise AssertionError(f"no {errno.errorcode[code]}")


def put(path, data=b""):
    with open(path, "wb") as file:
        file.write(data)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def names_are_bytes():
    for name in b"n" * 255, b"\xff\xfe", b"new\nline", b" ", b"...", b"\\", "ä".encode():
        put(name, name)
        assert get(name) == name
    assert len(os.listdir(b".")) == 7
    fails(errno.ENAMETOOLONG, put, b"n" * 256)
    fails(errno.ENOENT, get, "none")
    fails(errno.ENOTDIR, get, b"\xff\xfe/x")
    fails(errno.EEXIST, os.mkdir, b" ")
    fails(errno.EISDIR, put, ".")


def renames():
    put("a", b"A")
    put("b", b"B")
    os.mkdir("d")
    os.mkdir("e")
    put("e/x", b"X")
    fails(errno.EEXIST, renameat2, "a", "b", NOREPLACE)
    renameat2("a", "b", EXCHANGE)
    assert (get("a"), get("b")) == (b"B", b"A")
    os.rename("a", "b")
    assert get("b") == b"B" and not os.path.exists("a")
    fails(errno.ENOENT, os.rename, "a", "b")
    fails(errno.EISDIR, os.rename, "b", "d")
    fails(errno.ENOTDIR, os.rename, "d", "b")
    fails(errno.ENOTEMPTY, os.rename, "d", "e")
    fails(errno.EINVAL, os.rename, "e", "e/y")
    os.rename("e", "d")  # over an empty one
    assert get("d/x") == b"X"
    renameat2("b", "d", EXCHANGE)
    assert get("d") == b"B" and get("b/x") == b"X"
    os.mkdir("p")
    os.rename("b", "p/b")
    assert os.stat("p").st_nlink == 3 and get("p/b/x") == b"X"
    assert os.stat("p/b/..").st_ino == os.stat("p").st_ino
    renameat2("p/b", "moved", NOREPLACE)
    assert os.stat("p").st_nlink == 2 and get("moved/x") == b"X"


def links():
    put("a", b"one")
    os.link("a", "b")
    os.rename("a", "b")  # two names of one file: nothing happens
    assert os.stat("a").st_nlink == 2
    put("b", b"two")
    assert get("a") == b"two" and os.stat("a").st_ino == os.stat("b").st_ino
    os.unlink("a")
    assert os.stat("b").st_nlink == 1 and get("b") == b"two"
    os.mkdir("d")
    fails(errno.EPERM, os.link, "d", "hard")
    os.symlink("b", "soft")
    assert os.readlink("soft") == "b" and get("soft") == b"two"
    assert os.lstat("soft").st_size == 1
    os.symlink("x" * 4095, "far")
    assert os.readlink("far") == "x" * 4095
    os.symlink("loop", "loop")
    fails(errno.ELOOP, get, "loop")
    fails(errno.ENOTEMPTY, os.rmdir, "..")
    fails(errno.ENOTDIR, os.rmdir, "b")
    fails(errno.EISDIR, os.unlink, "d")


def modes_and_owners():
    put("f")
    for mode in 0o000, 0o644, 0o1777, 0o2755, 0o4755:
        os.chmod("f", mode)
        assert stat.S_IMODE(os.stat("f").st_mode) == mode
    os.mkfifo("fifo", 0o600)
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    if os.getuid():
        return
    os.chmod("f", 0o6755)
    os.chown("f", 1234, 4321)
    found = os.stat("f")
    assert (found.st_uid, found.st_gid) == (1234, 4321)
    os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    assert os.stat("device").st_rdev == os.makedev(1, 3)
    os.mkdir("sgid")
    os.chown("sgid", 0, 77)
    os.chmod("sgid", 0o2755)
    put("sgid/f")
    os.mkdir("sgid/d")
    assert os.stat("sgid/f").st_gid == 77 and os.stat("sgid/d").st_mode & stat.S_ISGID
    os.chmod("f", 0o644)
    child = os.fork()
    if child == 0:
        os.setgid(999)
        os.setuid(999)
        fails(errno.EACCES, put, "f")
        fails(errno.EPERM, os.chmod, "f", 0o777)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def times():
    put("f")
    for ns in 0, 1, -1_876_543_211, 1_700_000_000_123_456_789, (1 << 33) * 10**9 + 7:
        os.utime("f", ns=(ns, ns + 1))
        found = os.stat("f")
        assert (found.st_atime_ns, found.st_mtime_ns) == (ns, ns + 1), found
    before = os.stat(".").st_mtime_ns
    put("g")
    assert os.stat(".").st_mtime_ns > before
    before = os.stat("f")
    os.chmod("f", 0o600)
    after = os.stat("f")
    assert after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns
    put("f", b"x")
    assert abs(os.stat("f").st_mtime - time.time()) < 60


def contents():
    data = os.urandom(1_000_003)
    put("f", data)
    assert get("f") == data
    with open("f", "r+b") as file:
        for at, length in (0, 1), (65535, 2), (131072, 65536), (999_999, 4), (1_100_000, 10):
            piece = os.urandom(length)
            file.seek(at)
            file.write(piece)
            data = data.ljust(at, b"\0")
            data = data[:at] + piece + data[at + length:]
    assert get("f") == data
    for size in 900_000, 65_537, 65_536, 1, 0, 100_000:
        os.truncate("f", size)
        data = data[:size].ljust(size, b"\0")
        assert get("f") == data and os.stat("f").st_size == size
    for i in range(300):
        with open("log", "ab") as file:
            file.write(b"line %d\n" % i)
    assert get("log") == b"".join(b"line %d\n" % i for i in range(300))
    put("log", b"new")  # truncated and written
    assert get("log") == b"new"
    put("log")
    assert get("log") == b""


def holes():
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.truncate("f", 1 << 40)
    os.pwrite(fd, b"x" * 65536, 1 << 39)
    assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 39
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    assert os.lseek(fd, 1 << 39, os.SEEK_HOLE) == (1 << 39) + 65536
    fails(errno.ENXIO, os.lseek, fd, (1 << 39) + 65536, os.SEEK_DATA)
    assert os.fstat(fd).st_blocks * 512 <= 1 << 20
    os.truncate("f", 300_000)
    os.pwrite(fd, b"y" * 300_000, 0)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 100_000, 100_000)
    want = b"y" * 100_000 + bytes(100_000) + b"y" * 100_000
    assert os.pread(fd, 400_000, 0) == want
    fallocate(fd, 0, 0, 500_000)
    assert os.fstat(fd).st_size == 500_000
    fallocate(fd, KEEP_SIZE, 0, 900_000)
    assert os.fstat(fd).st_size == 500_000
    assert os.pread(fd, 600_000, 0) == want + bytes(200_000)
    os.close(fd)


def attributes():
    put("f")
    os.setxattr("f", "user.a", b"1")
    os.setxattr("f", "user.b", b"\0" * 60_000)
    os.setxattr("f", "user.empty", b"")
    assert sorted(os.listxattr("f")) == ["user.a", "user.b", "user.empty"]
    assert os.getxattr("f", "user.b") == b"\0" * 60_000
    fails(errno.EEXIST, os.setxattr, "f", "user.a", b"2", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, "f", "user.none", b"2", os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, "f", "user.none")
    os.removexattr("f", "user.b")
    assert sorted(os.listxattr("f")) == ["user.a", "user.empty"]
    os.rename("f", "g")
    assert os.getxattr("g", "user.a") == b"1"


def unlinked_and_open():
    put("f", b"x" * 200_000)
    fd = os.open("f", os.O_RDWR)
    os.unlink("f")
    put("f", b"another")
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"y", 199_999)
    assert os.pread(fd, 10, 199_995) == b"xxxxy"
    os.ftruncate(fd, 10)
    assert os.fstat(fd).st_size == 10
    os.fsync(fd)
    os.close(fd)
    assert get("f") == b"another"
    os.mkdir("d")
    directory = os.open("d", os.O_RDONLY)
    os.rmdir("d")
    fails(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
    os.close(directory)


def syncing():
    fd = os.open("f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"durable")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    directory = os.open(".", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def mapping():
    put("f", b"\0" * 100_000)
    with open("f", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[70_000:70_006] = b"mapped"
        view.flush()
        assert os.pread(file.fileno(), 6, 70_000) == b"mapped"
        os.pwrite(file.fileno(), b"written", 10)
        assert view[10:17] == b"written"
    assert get("f")[70_000:70_006] == b"mapped"


def listing():
    for i in range(3000):
        put(f"entry{i}")
    assert len(os.listdir(".")) == 3000
    removed = 0  # entries removed while the directory is read: each is met once at most
    with os.scandir(".") as entries:
        for entry in entries:
            os.unlink(entry.name)
            removed += 1
    assert removed == 3000 and os.listdir(".") == []


def inodes_in_use():
    found = os.statvfs(".")  # one call for both numbers: they move with the free space
    return found.f_files - found.f_ffree


def sizes():
    found = os.statvfs(".")
    assert found.f_namemax == 255 and found.f_frsize >= 512
    assert 0 < found.f_bavail <= found.f_bfree <= found.f_blocks
    put("f", b"x" * 10_000)
    assert os.stat("f").st_blocks * 512 >= 10_000 and os.stat("f").st_blksize == 1 << 20
    # What was removed before is given back some time after, and lowers the count: try again then.
    for i in range(100):
        before = inodes_in_use()
        put(f"f{i}", b"x")
        if inodes_in_use() > before:
            return
        time.sleep(0.1)
    raise AssertionError("a new file is not counted")


def kept():
    """What an earlier run left, after a remount."""
    assert get("contents/f") == get("contents/f").ljust(100_000, b"\0")
    assert get("links/b") == b"two" and os.readlink("links/soft") == "b"
    assert os.getxattr("attributes/g", "user.a") == b"1"
    assert os.stat("times/f").st_size == 1 and get("renames/moved/x") == b"X"
    assert get("mapping/f")[70_000:70_006] == b"mapped"
    assert get("unlinked_and_open/f") == b"another" and get("syncing/f") == b"durable"
    assert os.stat("holes/f").st_size == 500_000
    if os.getuid() == 0:
        assert os.stat("modes_and_owners/f").st_uid == 1234


TESTS = (names_are_bytes, renames, links, modes_and_owners, times, contents, holes, attributes,
         unlinked_and_open, syncing, mapping, listing, sizes)
root = sys.argv[1]
os.chdir(root)
if sys.argv[2:] == ["again"]:
    kept()
else:
    for test in TESTS:
        print(test.__name__, flush=True)
        os.mkdir(test.__name__)
        os.chdir(test.__name__)
        test()
        os.chdir(root)
