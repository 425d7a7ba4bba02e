#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""times.py MOUNTPOINT [relatime]: which times and link counts each call changes, to the ns."""
import ctypes
import errno
import os
import socket
import stat
import sys
import posixlib
from posixlib import (EXCHANGE, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fails, fallocate, get, opened,
                      put, raw, renameat2, statx)

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
ATIME, MTIME, CTIME = "atime", "mtime", "ctime"
NEW = {ATIME, MTIME, CTIME}
ROOT = ""


def times_of(path):
    found = os.lstat(path)
    return {ATIME: found.st_atime_ns, MTIME: found.st_mtime_ns, CTIME: found.st_ctime_ns}


def tick():
    """Returns when a file that changes now has a later time than all that changed before."""
    clock = os.path.join(ROOT, "clock")
    with opened(clock, os.O_RDWR | os.O_CREAT) as fd:
        before = None
        for _ in range(10_000_000):
            os.pwrite(fd, b"x", 0)
            now = os.fstat(fd).st_mtime_ns
            if before is not None and now > before:
                return now
            before = before or now
    raise AssertionError("the clock stands still")


def moves(expected, call, *args):
    """The call sets, of the paths in expected, exactly these times, and to now."""
    before = {path: times_of(path) for path in expected if os.path.lexists(path)}
    start = tick()
    call(*args)
    end = tick()
    for path, want in expected.items():
        after = times_of(path)
        moved = {name for name in NEW if path not in before or after[name] != before[path][name]}
        assert moved == set(want), f"{path}: {sorted(moved)}, not {sorted(want)}"
        for name in moved:
            assert start <= after[name] <= end, f"{path}: {name} is {after[name]}, not now"


CHANGED = {MTIME, CTIME}


def bind(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def making():
    put("file", b"file")
    for call, *args in ((put, "new"), (os.mkdir, "newdir"), (os.mkfifo, "fifo"), (bind, "socket"),
                        (os.mknod, "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))):
        moves({args[0]: NEW, ".": CHANGED}, call, *args)
    moves({"soft": NEW, ".": CHANGED}, os.symlink, "target", "soft")
    moves({"file": {CTIME}, ".": CHANGED}, os.link, "file", "hard")
    moves({"soft": {CTIME}, ".": CHANGED}, os.link, "soft", "hardsoft")
    # What fails changes nothing.
    for call, *args in ((os.mkdir, "file"), (os.symlink, "x", "file"), (os.link, "file", "new"),
                        (os.open, "file", os.O_CREAT | os.O_EXCL)):
        moves({"file": (), ".": ()}, fails, errno.EEXIST, call, *args)
    moves({"file": (), ".": ()}, lambda: os.close(os.open("file", os.O_CREAT | os.O_WRONLY)))


def removing():
    for name in "file", "other":
        put(name, b"file")
        os.link(name, name + "2")
    os.mkdir("dir")
    os.mkdir("dir/sub")
    moves({"file2": {CTIME}, ".": CHANGED}, os.unlink, "file")
    moves({"dir": CHANGED, ".": ()}, os.rmdir, "dir/sub")
    moves({"dir": (), ".": ()}, fails, errno.EISDIR, os.unlink, "dir")
    with opened("dir") as fd, opened("file2") as file:
        before = os.fstat(fd).st_ctime_ns
        moves({".": CHANGED}, os.rmdir, "dir")
        assert os.fstat(fd).st_ctime_ns > before
        before = os.fstat(file)
        moves({".": CHANGED}, os.unlink, "file2")
        after = os.fstat(file)
        assert after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns


def renaming():
    os.mkdir("a")
    os.mkdir("b")
    for name in "a/file", "b/over":
        put(name)
    os.link("b/over", "linked")
    os.mkdir("a/dir")
    moves({"a": CHANGED, "b": CHANGED, "linked": {CTIME}, ".": ()}, os.rename, "a/file", "b/over")
    before = times_of("b/over")
    moves({"b": CHANGED, "a": ()}, os.rename, "b/over", "b/file")
    after = times_of("b/file")
    assert after[CTIME] > before[CTIME] and after[MTIME] == before[MTIME]
    before = times_of("a/dir")
    moves({"a": CHANGED, "b": CHANGED}, os.rename, "a/dir", "b/dir")
    assert times_of("b/dir")[CTIME] > before[CTIME]
    put("a/x")
    moves({"a": CHANGED, "b": CHANGED}, renameat2, "a/x", "b/dir", EXCHANGE)
    os.link("b/file", "b/same")
    moves({"b": (), "b/file": (), "b/same": ()}, os.rename, "b/file", "b/same")
    moves({"b": (), "a": ()}, fails, errno.EISDIR, os.rename, "b/file", "a/x")


def attributes():
    put("file", b"file")
    os.symlink("file", "soft")
    for call, *args in ((os.chmod, "file", 0o600), (os.chmod, "file", 0o600),
                        (os.chown, "file", 1, 1), (os.chown, "file", -1, 1),
                        (os.chown, "file", -1, -1), (os.setxattr, "file", "user.a", b"1"),
                        (os.removexattr, "file", "user.a")):
        moves({"file": {CTIME}, "soft": (), ".": ()}, call, *args)
    moves({"file": (), "soft": {CTIME}, ".": ()}, os.lchown, "soft", 1, 1)
    moves({"file": (), ".": ()}, fails, errno.ENODATA, os.removexattr, "file", "user.a")


def contents():
    put("file", b"file" * 1000)
    put("other", b"data" * 1000)
    with opened("file", os.O_RDWR) as fd, opened("other") as other:
        for call, *args in ((os.pwrite, fd, b"x", 10), (os.ftruncate, fd, 100),
                            (os.ftruncate, fd, 100), (os.ftruncate, fd, 5000),
                            (os.truncate, "file", 0), (os.truncate, "file", 0),
                            (fallocate, fd, 0, 0, 9000), (fallocate, fd, KEEP_SIZE, 0, 9000),
                            (fallocate, fd, PUNCH_HOLE | KEEP_SIZE, 0, 5000),
                            (fallocate, fd, ZERO_RANGE, 0, 5000),
                            (os.copy_file_range, other, fd, 100, 0, 0),
                            (os.sendfile, fd, other, 0, 100)):
            moves({"file": CHANGED, ".": ()}, call, *args)
        moves({"file": ()}, os.pwrite, fd, b"", 0)
        moves({"file": ()}, os.fsync, fd)
    moves({"file": CHANGED, ".": ()}, put, "file")  # O_TRUNC, empty or not
    moves({"file": CHANGED, ".": ()}, put, "file")
    moves({"file": CHANGED, ".": ()}, put, "file", b"x")
    moves({"file": ()}, lambda: os.close(os.open("file", os.O_WRONLY)))


def utimensat(path, atime, mtime, flags=0):
    class Times(ctypes.Structure):
        _fields_ = [("a", ctypes.c_long * 2), ("m", ctypes.c_long * 2)]

    times = Times((ctypes.c_long * 2)(*atime), (ctypes.c_long * 2)(*mtime))
    raw("utimensat", posixlib.AT_FDCWD, os.fsencode(path), ctypes.byref(times), flags)


def setting_times():
    put("file")
    os.symlink("file", "soft")
    for seconds in 0, 1, -1, -(1 << 31) + 1, (1 << 31) - 1, 1 << 31, (1 << 33) + 7:
        before = tick()
        utimensat("file", (seconds, 1), (seconds, 999_999_999))
        found = times_of("file")
        assert found[ATIME] == seconds * 10**9 + 1, found
        assert found[MTIME] == seconds * 10**9 + 999_999_999, found
        assert before <= found[CTIME] <= tick()
    now, omit, old = (7, UTIME_NOW), (7, UTIME_OMIT), (5, 6)
    moves({"file": {ATIME, MTIME, CTIME}}, utimensat, "file", now, now)
    moves({"file": {ATIME, MTIME, CTIME}}, os.utime, "file")
    moves({"file": {ATIME, CTIME}}, utimensat, "file", now, omit)
    moves({"file": {MTIME, CTIME}}, utimensat, "file", omit, now)
    moves({"file": ()}, utimensat, "file", omit, omit)
    utimensat("file", old, omit)
    utimensat("file", omit, old)
    found = times_of("file")
    assert found[ATIME] == found[MTIME] == 5 * 10**9 + 6
    utimensat("file", old, now)
    assert times_of("file")[MTIME] > found[MTIME] and times_of("file")[ATIME] == found[ATIME]
    fails(errno.EINVAL, utimensat, "file", (1, 10**9), (1, 0))
    fails(errno.EINVAL, utimensat, "file", (1, 0), (1, -1))
    before = times_of("file")
    utimensat("soft", old, old, 0x100)  # AT_SYMLINK_NOFOLLOW
    assert times_of("soft")[MTIME] == 5 * 10**9 + 6 and times_of("file") == before
    os.mkdir("dir")
    utimensat("dir", old, old)
    os.mkdir("dir/sub")
    assert times_of("dir")[MTIME] > 10**18 and times_of("dir")[ATIME] == 5 * 10**9 + 6


def birth():
    before = tick()
    put("file", b"data")
    after = tick()
    mask, born, size = statx("file")
    assert mask & 0x800 and before <= born <= after and size == 4
    os.utime("file", (1, 1))
    os.rename("file", "renamed")
    put("renamed", b"more data")
    for flags in 0, 0x2000, 0x4000:  # AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC
        mask, again, size = statx("renamed", flags)
        assert mask & 0xfff == 0xfff and again == born and size == 9, (flags, hex(mask))
    os.mkdir("dir")
    os.symlink("x", "soft")
    os.mkfifo("f")
    for path in "dir", "soft", "f":
        assert statx(path, 0x100)[1] >= after


def link_counts():
    def links(path):
        return os.lstat(path).st_nlink

    put("file")
    start = links(".")
    for i in range(100):
        os.link("file", f"l{i}")
    assert links("file") == 101 and links(".") == start
    os.rename("l0", "l1")
    assert links("file") == 101  # they are one file: nothing happens
    os.mkdir("a")
    os.mkdir("b")
    assert links(".") == start + 2 and links("a") == 2
    for i in range(100):
        os.mkdir(f"a/{i}")
    assert links("a") == 102
    os.rename("a/0", "b/0")
    assert links("a") == 101 and links("b") == 3
    os.rename("b/0", "a/1")  # over an empty one
    assert links("a") == 101 and links("b") == 2
    renameat2("a/1", "b/x", 1)
    renameat2("file", "b/x", EXCHANGE)
    assert links("b") == 2 and links(".") == start + 3 and links("b/x") == 101
    os.rmdir("a/2")
    assert links("a") == 99
    with opened("b/x") as fd:
        for path in ["b/x"] + [f"l{i}" for i in range(100)]:
            os.unlink(path)
        assert os.fstat(fd).st_nlink == 0


def reading_moves_no_atime():
    put("file", b"x" * 10000)
    os.mkdir("dir")
    os.symlink("file", "soft")
    moves({"file": (), "dir": (), "soft": ()},
          lambda: (get("file"), os.listdir("dir"), os.readlink("soft")))


def relatime():
    """Reads that reach the file system: the kernel's cache is dropped before each."""
    def read():
        with opened("file") as fd:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(fd, 5000, 0)

    put("file", b"x" * 10000)
    with opened("file") as fd:
        os.fsync(fd)
    moves({"file": {ATIME}}, read)
    moves({"file": ()}, read)  # later than the last change, and not a day ago
    os.chmod("file", 0o600)
    moves({"file": {ATIME}}, read)
    put("file", b"y" * 10000)
    moves({"file": {ATIME}}, read)
    os.utime("file", (os.stat("file").st_mtime - 25 * 3600,) * 2)
    moves({"file": {ATIME}}, read)
    with opened("file", os.O_RDONLY | os.O_NOATIME):
        pass


TESTS = (making, removing, renaming, attributes, contents, setting_times, birth, link_counts)

if __name__ == "__main__":
    ROOT = sys.argv[1]
    if sys.argv[2:] == ["relatime"]:
        posixlib.run(ROOT, (relatime,))
    else:
        posixlib.run(ROOT, TESTS + (reading_moves_no_atime,) * (sys.argv[2:] != ["ext4"]))
