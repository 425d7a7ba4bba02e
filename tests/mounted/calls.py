#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""calls.py MOUNTPOINT [ext4]: calls on the contents of files, locks, attributes and handles. Root."""
import array
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import stat
import struct
import sys
import tempfile
import threading
import posixlib
from posixlib import (ALICE, AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, COLLAPSE, EXCHANGE, INSERT,
                      KEEP_SIZE, NOREPLACE, PUNCH_HOLE, WHITEOUT, ZERO_RANGE, as_user, bits, fails,
                      fallocate, forked, get, linkat, opened, put, raw, renameat2)

EXT4 = False
RW = os.O_RDWR | os.O_CREAT
KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40


def renaming_with_flags():
    put("a", b"A")
    put("b", b"B")
    os.mkdir("d")
    os.symlink("none", "soft")
    for there in "b", "d", "soft", "a":
        fails(errno.EEXIST, renameat2, "a", there, NOREPLACE)
    renameat2("a", "c", NOREPLACE)
    renameat2("c", "d", EXCHANGE)
    assert get("d") == b"A" and os.path.isdir("c")
    renameat2("d", "soft", EXCHANGE)
    assert os.readlink("d") == "none" and get("soft") == b"A"
    renameat2("b", "b", EXCHANGE)
    fails(errno.EINVAL, renameat2, "b", "x", EXCHANGE | NOREPLACE)
    fails(errno.EINVAL, renameat2, "b", "x", 64)
    if not EXT4:
        fails(errno.EINVAL, renameat2, "b", "x", WHITEOUT)
    assert sorted(os.listdir(".")) == ["b", "c", "d", "soft"] and get("b") == b"B"


def allocating():
    with opened("file", RW) as fd:
        os.pwrite(fd, b"x" * 100_000, 0)
        fallocate(fd, KEEP_SIZE, 0, 200_000)
        assert os.fstat(fd).st_size == 100_000
        fallocate(fd, 0, 150_000, 50_000)
        assert os.fstat(fd).st_size == 200_000
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 10, 65_600)
        want = bytearray(b"x" * 100_000 + bytes(100_000))
        want[10:65_610] = bytes(65_600)
        assert os.pread(fd, 300_000, 0) == want
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 190_000, 1 << 40)  # past the end: only to it
        fallocate(fd, ZERO_RANGE | KEEP_SIZE, 90_000, 300_000)
        want[90_000:] = bytes(110_000)
        assert os.pread(fd, 300_000, 0) == want
        fallocate(fd, ZERO_RANGE, 80_000, 300_000)
        want[80_000:] = bytes(300_000)
        assert os.pread(fd, 500_000, 0) == want
        fallocate(fd, ZERO_RANGE, 500_000, 1)
        assert os.fstat(fd).st_size == 500_001
        # Nothing comes back when the file grows again.
        os.pwrite(fd, b"y" * 1000, 400_000)
        os.ftruncate(fd, 400_500)
        fallocate(fd, 0, 0, 401_000)
        assert os.pread(fd, 1000, 400_000) == b"y" * 500 + bytes(500)
        for mode in COLLAPSE, INSERT:
            if not EXT4:
                fails(errno.EOPNOTSUPP, fallocate, fd, mode, 0, 4096)
        fails((errno.EOPNOTSUPP, errno.EINVAL), fallocate, fd, PUNCH_HOLE, 0, 4096)
        fails((errno.EOPNOTSUPP, errno.EINVAL), fallocate, fd, ZERO_RANGE | PUNCH_HOLE, 0, 4096)
        fails(errno.EINVAL, fallocate, fd, 0, 0, 0)
        fails(errno.EINVAL, fallocate, fd, 0, -1, 10)
        fails(errno.EFBIG, fallocate, fd, 0, (1 << 63) - 10, 10)
        free = os.statvfs(".")
        too_much = free.f_bavail * free.f_frsize + (1 << 30)
        before = os.fstat(fd)
        fails(errno.ENOSPC, fallocate, fd, 0, 0, too_much)
        if not EXT4:  # it goes as far as it comes
            assert os.fstat(fd).st_size == before.st_size
            os.ftruncate(fd, 2 * too_much)  # a hole has nothing set aside
            fails(errno.ENOSPC, fallocate, fd, 0, 0, too_much)
        os.ftruncate(fd, 0)
    with opened("file") as fd:
        fails(errno.EBADF, fallocate, fd, 0, 0, 10)
    with opened(".") as fd:
        fails((errno.EBADF, errno.EISDIR), fallocate, fd, 0, 0, 10)


def data_and_holes():
    def seek(offset, whence):
        return os.lseek(fd, offset, whence)

    with opened("file", RW) as fd:
        fails(errno.ENXIO, seek, 0, os.SEEK_DATA)
        fails(errno.ENXIO, seek, 0, os.SEEK_HOLE)
        os.ftruncate(fd, 10 * MIB)
        fails(errno.ENXIO, seek, 0, os.SEEK_DATA)
        assert seek(0, os.SEEK_HOLE) == 0 and seek(MIB, os.SEEK_HOLE) == MIB
        os.pwrite(fd, b"x" * MIB, MIB)
        os.pwrite(fd, b"x" * MIB, 5 * MIB)
        assert seek(0, os.SEEK_DATA) == MIB and seek(MIB + 5, os.SEEK_DATA) == MIB + 5
        assert seek(MIB + 5, os.SEEK_HOLE) == 2 * MIB
        assert seek(2 * MIB, os.SEEK_DATA) == 5 * MIB
        fails(errno.ENXIO, seek, 6 * MIB, os.SEEK_DATA)
        fails(errno.ENXIO, seek, 10 * MIB, os.SEEK_HOLE)
        fails(errno.ENXIO, seek, -1, os.SEEK_DATA)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, MIB, MIB)
        assert seek(0, os.SEEK_DATA) == 5 * MIB
        os.ftruncate(fd, 6 * MIB)
        assert seek(5 * MIB, os.SEEK_HOLE) == 6 * MIB  # the end is one
        with mmap.mmap(fd, 6 * MIB) as view:  # what only the page cache has
            view[3 * MIB] = 1
            assert seek(0, os.SEEK_DATA) <= 3 * MIB


def copying():
    data = os.urandom(3 * MIB + 77)
    put("from", data)
    with opened("from") as source, opened("to", RW) as to:
        assert os.copy_file_range(source, to, 1000, 50, 200) == 1000
        assert os.pread(to, 5000, 0) == bytes(200) + data[50:1050]
        at = 0
        while n := os.copy_file_range(source, to, 10 * MIB, at, at):
            at += n
        assert get("to") == data
        assert os.copy_file_range(source, to, 10, len(data) + 5, 0) == 0
        fails(errno.EINVAL, os.copy_file_range, to, to, 1000, 0, 500)  # they overlap
        os.ftruncate(to, 0)
        at = 0
        while at < len(data):
            at += os.sendfile(to, source, at, len(data) - at)
        assert get("to") == data
        os.ftruncate(to, 0)
        ends, at = os.pipe(), 0
        while n := os.splice(source, ends[1], 65536, offset_src=at):
            done = 0
            while done < n:
                done += os.splice(ends[0], to, n - done, offset_dst=at + done)
            at += n
        assert get("to") == data
        os.close(ends[0]), os.close(ends[1])
        fails((errno.EOPNOTSUPP, errno.ENOTTY), fcntl.ioctl, to, 0x40049409, source)  # FICLONE
        with tempfile.TemporaryFile() as other:  # another file system
            os.sendfile(other.fileno(), source, 0, 10_000)
            assert os.pread(other.fileno(), 20_000, 0) == data[:10_000]


def appending():
    with opened("file", RW | os.O_APPEND) as one, opened("file", os.O_WRONLY | os.O_APPEND) as two:
        for i in range(100):
            os.write(one if i % 3 else two, b"%03d\n" % i)
        os.lseek(one, 0, os.SEEK_SET)
        os.write(one, b"end\n")
    assert get("file") == b"".join(b"%03d\n" % i for i in range(100)) + b"end\n"

    def child(word):
        with opened("file", os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(300):
                os.write(fd, word)

    put("file")
    forked(lambda: (forked(child, b"a" * 9 + b"\n"), child(b"b" * 9 + b"\n")))
    pid = os.fork()
    if pid == 0:
        child(b"c" * 9 + b"\n")
        os._exit(0)
    child(b"d" * 9 + b"\n")
    assert os.waitpid(pid, 0)[1] == 0
    lines = get("file").split(b"\n")
    assert len(lines) == 1201 and all(len(set(line)) == 1 and len(line) == 9 for line in lines[:-1])


def shared_mappings():
    put("file", b"." * 100_000)
    with opened("file", os.O_RDWR) as fd, mmap.mmap(fd, 100_000) as view:
        view[50_000:50_005] = b"store"
        assert os.pread(fd, 5, 50_000) == b"store" and get("file")[50_000:50_005] == b"store"
        os.pwrite(fd, b"write", 60_000)
        assert view[60_000:60_005] == b"write"
        forked(lambda: view.__setitem__(slice(70_000, 70_005), b"child"))
        assert os.pread(fd, 5, 70_000) == b"child"
        os.fsync(fd)
        os.utime("file", (1, 1))
        view[0] = 65
        view.flush()
        os.fsync(fd)
        assert os.stat("file").st_mtime > 10**9
        view[80_000:80_004] = b"kept"
        os.rename("file", "renamed")
        view[80_004:80_008] = b"over"
    assert get("renamed")[80_000:80_008] == b"keptover"
    with opened("unlinked", RW) as fd:
        os.ftruncate(fd, 8192)
        with mmap.mmap(fd, 8192) as view:
            os.unlink("unlinked")
            view[5000] = 1
            view.flush()
            assert os.pread(fd, 1, 5000) == b"\1"


def mappings_and_the_end_of_the_file():
    with opened("file", RW) as fd:
        os.pwrite(fd, b"x" * 5000, 0)
        with mmap.mmap(fd, 0) as view:
            view[4999] = 66
            # Behind the end, to the end of its page, are zeros, and what is stored there is lost.
            address = ctypes.addressof(ctypes.c_char.from_buffer(view, 0))
            assert ctypes.string_at(address + 5000, 3192) == bytes(3192)
            ctypes.memset(address + 5000, 7, 100)
            view.flush()
            os.ftruncate(fd, 8192)
            os.fsync(fd)
            assert os.pread(fd, 3192, 5000) == bytes(3192)

    def beyond(write):
        with opened("file", os.O_RDWR) as fd:
            os.ftruncate(fd, 3 * 4096)
            view = mmap.mmap(fd, 3 * 4096)
            view[8192] = 1
            os.ftruncate(fd, 4096)
            if write:
                view[8192] = 1
            else:
                _ = view[8192]
        os._exit(0)

    for write in False, True:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            beyond(write)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGBUS
    with opened("file", os.O_RDWR) as fd:  # grown under a mapping that has room
        view = mmap.mmap(fd, 4096)
        os.ftruncate(fd, 10)
        os.pwrite(fd, b"z" * 4096, 0)
        assert view[4095] == ord("z")


def direct_io():
    with opened("file", RW | os.O_DIRECT) as fd, opened("file", os.O_RDWR) as cached:
        with mmap.mmap(-1, 2 * MIB) as buffer:  # aligned
            buffer[:] = os.urandom(2 * MIB)
            data = bytes(buffer)
            assert os.pwritev(fd, [buffer], 0) == 2 * MIB
            assert os.pread(cached, 2 * MIB, 0) == data
            os.pwrite(cached, b"cached", 100_000)
            with mmap.mmap(-1, MIB) as got:
                assert os.preadv(fd, [got], 0) == MIB
                assert got[:] == data[:100_000] + b"cached" + data[100_006:MIB]
                assert os.preadv(fd, [got], 2 * MIB) == 0
                assert os.preadv(fd, [got], 2 * MIB - 4096) == 4096
            assert os.pwritev(fd, [memoryview(buffer)[:4096]], 8 * MIB) == 4096
        assert os.fstat(fd).st_size == 8 * MIB + 4096
        assert os.pread(cached, MIB, 4 * MIB) == bytes(MIB)
        if not EXT4:  # unaligned: EINVAL there, and here it works
            assert os.pwrite(fd, b"unaligned", 4097) == 9
            assert os.pread(cached, 9, 4097) == b"unaligned"
            assert os.pread(fd, 9, 4097) == b"unaligned"


def locks():
    """Of another process: flock, POSIX and OFD locks."""
    put("file", b"x" * 100)
    OFD_SETLK, OFD_GETLK = 37, 36

    def posix(fd, kind, start, length, command=fcntl.F_SETLK):
        packed = struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0)
        return struct.unpack("hhqqi", fcntl.fcntl(fd, command, packed))

    def child():
        with opened("file", os.O_RDWR) as fd:
            fails(errno.EWOULDBLOCK, fcntl.flock, fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fails((errno.EAGAIN, errno.EACCES), posix, fd, fcntl.F_WRLCK, 5, 1)
            fails(errno.EAGAIN, posix, fd, fcntl.F_WRLCK, 25, 1, OFD_SETLK)
            posix(fd, fcntl.F_WRLCK, 10, 5)
            posix(fd, fcntl.F_RDLCK, 50, 5)
            fails(errno.EAGAIN, posix, fd, fcntl.F_WRLCK, 50, 1)
            found = posix(fd, fcntl.F_WRLCK, 0, 100, fcntl.F_GETLK)
            assert found[0] == fcntl.F_WRLCK and found[2:4] == (0, 10), found
            assert found[4] == os.getppid(), found
            found = posix(fd, fcntl.F_RDLCK, 20, 10, OFD_GETLK)
            assert found[0] == fcntl.F_WRLCK and found[4] == -1, found

    with opened("file", os.O_RDWR) as fd, opened("file", os.O_RDWR) as other:
        fcntl.flock(fd, fcntl.LOCK_EX)
        posix(fd, fcntl.F_WRLCK, 0, 10)
        posix(fd, fcntl.F_RDLCK, 50, 10)
        posix(other, fcntl.F_WRLCK, 20, 10, OFD_SETLK)
        fails(errno.EAGAIN, posix, fd, fcntl.F_WRLCK, 20, 1, OFD_SETLK)
        forked(child)
        ready = os.pipe()
        pid = os.fork()
        if pid == 0:  # waits
            with opened("file", os.O_RDWR) as mine:
                os.write(ready[1], b".")
                fcntl.flock(mine, fcntl.LOCK_EX)
                posix(mine, fcntl.F_WRLCK, 0, 10, fcntl.F_SETLKW)
                os._exit(0)
        os.read(ready[0], 1)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        fcntl.flock(fd, fcntl.LOCK_UN)
        posix(fd, fcntl.F_UNLCK, 0, 0)
        assert os.waitpid(pid, 0)[1] == 0
        os.close(ready[0]), os.close(ready[1])


def special_files():
    for name, kind in ("fifo", stat.S_IFIFO), ("socket", stat.S_IFSOCK), ("file", stat.S_IFREG):
        os.mknod(name, kind | 0o640)
        found = os.stat(name)
        assert stat.S_IFMT(found.st_mode) == kind and bits(name) == 0o640 and found.st_rdev == 0
    for kind in stat.S_IFCHR, stat.S_IFBLK:
        for major, minor in (1, 3), (0, 0), (4095, 1048575), (259, 300):
            name = f"device-{kind}-{major}-{minor}"
            os.mknod(name, kind | 0o666, os.makedev(major, minor))
            found = os.stat(name)
            assert stat.S_IFMT(found.st_mode) == kind and found.st_nlink == 1
            assert found.st_rdev == os.makedev(major, minor), found
    null, zero = f"device-{stat.S_IFCHR}-1-3", "zero"
    os.mknod(zero, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with opened(null, os.O_RDWR) as fd:
        assert os.write(fd, b"gone") == 4 and os.read(fd, 5) == b""
    with opened(zero) as fd:
        assert os.read(fd, 5) == bytes(5)
    pid = os.fork()
    if pid == 0:
        with opened("fifo", os.O_WRONLY) as fd:
            os.write(fd, b"through")
        os._exit(0)
    assert get("fifo") == b"through" and os.waitpid(pid, 0)[1] == 0


def extended_attributes():
    put("file")
    os.mkdir("dir")
    os.symlink("file", "soft")
    for path in "file", "dir":
        for prefix in "user", "trusted", "security":
            os.setxattr(path, f"{prefix}.a", b"value")
            os.setxattr(path, f"{prefix}.empty", b"")
            assert os.getxattr(path, f"{prefix}.a") == b"value"
            assert os.getxattr(path, f"{prefix}.empty") == b""
        assert len(os.listxattr(path)) == 6
        as_user(ALICE, see, path)
        os.setxattr(path, "user.a", b"longer value", os.XATTR_REPLACE)
        fails(errno.EEXIST, os.setxattr, path, "user.a", b"", os.XATTR_CREATE)
        fails(errno.ENODATA, os.setxattr, path, "user.b", b"", os.XATTR_REPLACE)
        os.setxattr(path, "user.b", b"", os.XATTR_CREATE)
        os.removexattr(path, "user.b")
        fails(errno.ENODATA, os.removexattr, path, "user.b")
        fails(errno.EOPNOTSUPP, os.setxattr, path, "other.a", b"")
        fails(errno.EOPNOTSUPP, os.setxattr, path, "a", b"")
        fails(errno.ERANGE, os.setxattr, path, "user." + "n" * 251, b"")
        fails((errno.EINVAL, errno.ERANGE), os.setxattr, path, "", b"")
        os.setxattr(path, "user." + "n" * 250, b"longest")
    fails(errno.EPERM, os.setxattr, "soft", "user.a", b"", follow_symlinks=False)
    os.setxattr("soft", "trusted.a", b"of a link", follow_symlinks=False)
    assert os.listxattr("soft", follow_symlinks=False) == ["trusted.a"]
    buf = ctypes.create_string_buffer(100)
    assert raw("getxattr", b"file", b"user.a", None, 0) == 12
    fails(errno.ERANGE, raw, "getxattr", b"file", b"user.a", buf, 11)
    assert raw("getxattr", b"file", b"user.a", buf, 12) == 12 and buf[:12] == b"longer value"
    length = raw("listxattr", b"file", None, 0)
    assert length == sum(len(name) + 1 for name in os.listxattr("file"))
    fails(errno.ERANGE, raw, "listxattr", b"file", buf, 20)
    fails(errno.E2BIG, os.setxattr, "file", "user.big", b"x" * (64 * KIB + 1))
    if EXT4:
        return
    os.setxattr("file", "user.big", b"b" * (64 * KIB))
    assert os.getxattr("file", "user.big") == b"b" * (64 * KIB)
    os.setxattr("file", "user.big", b"c" * (64 * KIB))
    assert os.getxattr("file", "user.big") == b"c" * (64 * KIB)
    os.setxattr("file", "user.big", b"")
    assert os.getxattr("file", "user.big") == b""
    put("many")  # as many as listxattr(2) can tell, and no more
    count = 0
    try:
        while count < 400:
            os.setxattr("many", f"user.{count:0250}", b"x")
            count += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    assert count == 64 * KIB // 256 and len(os.listxattr("many")) == count
    os.setxattr("many", f"user.{0:0250}", b"another")  # no longer list
    os.removexattr("many", f"user.{1:0250}")
    os.setxattr("many", f"user.{400:0250}", b"x")


def see(path):
    """What others than root may see."""
    assert os.getxattr(path, "security.a") == b"value"
    fails(errno.ENODATA, os.getxattr, path, "trusted.a")
    fails(errno.EPERM, os.setxattr, path, "trusted.a", b"")
    fails(errno.EPERM, os.setxattr, path, "security.a", b"")


def files_without_a_name():
    def temporary(flags=0):
        return os.open(".", os.O_TMPFILE | os.O_RDWR | flags, 0o640)

    before = os.stat(".").st_mtime_ns
    fd = temporary()
    os.write(fd, b"contents")
    os.setxattr(fd, "user.a", b"1")
    found = os.fstat(fd)
    assert found.st_nlink == 0 and found.st_size == 8 and found.st_mode & 0o7777 == 0o640
    assert os.listdir(".") == [] and os.stat(".").st_mtime_ns == before
    linkat(AT_FDCWD, f"/proc/self/fd/{fd}", "one", AT_SYMLINK_FOLLOW)
    linkat(fd, "", "two", AT_EMPTY_PATH)
    assert get("one") == b"contents" and os.stat("two").st_nlink == 2 == os.fstat(fd).st_nlink
    fails(errno.EEXIST, linkat, fd, "", "one", AT_EMPTY_PATH)
    assert os.getxattr("two", "user.a") == b"1" and os.stat("one").st_ino == found.st_ino
    os.unlink("one")
    os.unlink("two")
    fails(errno.ENOENT, linkat, fd, "", "three", AT_EMPTY_PATH)
    os.close(fd)
    fd = temporary(os.O_EXCL)
    fails(errno.ENOENT, linkat, fd, "", "never", AT_EMPTY_PATH)
    os.close(fd)
    put("file")
    fails(errno.ENOTDIR, os.open, "file", os.O_TMPFILE | os.O_RDWR)
    fails(errno.EINVAL, os.open, ".", os.O_TMPFILE | os.O_RDONLY)
    os.chown(".", 0, 4242)
    os.chmod(".", 0o2755)
    fd = temporary()
    assert os.fstat(fd).st_gid == 4242
    os.close(fd)
    os.chmod(".", 0o755)
    as_user(ALICE, fails, errno.EACCES, temporary)


def many_syncs():
    """More at once than one sync of the daemon's answers, or a ring has entries."""
    count, done = 200, []
    together = threading.Barrier(count)

    def sync(name):
        fd = os.open(name, RW)
        together.wait()
        for size in range(1, 4):
            os.write(fd, name.encode())
            os.fsync(fd)
            assert os.fstat(fd).st_size == size * len(name)
        os.close(fd)
        done.append(name)

    names = [f"file {i}" for i in range(count)]
    threads = [threading.Thread(target=sync, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(names)
    assert all(get(name) == name.encode() * 3 for name in names)


TESTS = (renaming_with_flags, allocating, data_and_holes, copying, appending, shared_mappings,
         mappings_and_the_end_of_the_file, direct_io, locks, special_files, extended_attributes,
         files_without_a_name, many_syncs)

if __name__ == "__main__":
    EXT4 = sys.argv[2:] == ["ext4"]
    posixlib.run(sys.argv[1], TESTS)
