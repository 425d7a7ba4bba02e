#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""dirs.py MOUNTPOINT [ext4]: listing directories while they change, very large sparse files, and
file handles as NFS has them. Root."""
import ctypes
import errno
import os
import struct
import sys
import threading
import posixlib
from posixlib import AT_FDCWD, fails, get, libc, opened, put, raw

EXT4 = False
MIB, TIB = 1 << 20, 1 << 40
for name, result in ("opendir", ctypes.c_void_p), ("readdir", ctypes.c_void_p), (
        "telldir", ctypes.c_long):
    getattr(libc, name).restype = result
for name in "readdir", "telldir", "rewinddir", "closedir":
    getattr(libc, name).argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Directory:
    """A DIR, with telldir and seekdir."""

    def __init__(self, path):
        self.dir = libc.opendir(os.fsencode(path))
        assert self.dir

    def __enter__(self):
        return self

    def __exit__(self, *_):
        libc.closedir(self.dir)

    def next(self):
        entry = libc.readdir(self.dir)
        return ctypes.string_at(entry + 19).decode() if entry else None

    def rest(self):
        return list(iter(self.next, None))

    def tell(self):
        return libc.telldir(self.dir)

    def seek(self, offset):
        libc.seekdir(self.dir, offset)

    def rewind(self):
        libc.rewinddir(self.dir)


def fill(count, directory="."):
    for i in range(count):
        os.close(os.open(f"{directory}/{i:06}", os.O_CREAT | os.O_WRONLY))


def telling_and_seeking():
    fill(2000)
    with Directory(".") as d:
        places = []
        while True:
            at = d.tell()
            name = d.next()
            if name is None:
                break
            places.append((at, name))
        assert sorted(name for _, name in places) == sorted(os.listdir(".") + [".", ".."])
        assert len({at for at, _ in places}) == len(places)
        for at, name in places[::37] + places[::-41]:
            d.seek(at)
            assert d.next() == name
        # An offset holds after the deletion of what it points at, in another reader and later.
        order = [name for _, name in places]
        gone = set()
        for i in range(700, 1400, 7):
            at, name = places[i]
            if name in (".", ".."):
                continue
            os.unlink(name)
            gone.add(name)
            with Directory(".") as again:
                again.next()  # the kernel looks only at the beginning whether its cache is right
                again.seek(at)
                assert again.next() == order[i + 1]
                again.seek(at)
                assert again.rest() == [name for name in order[i:] if name not in gone]
        d.rewind()
        assert d.rest() == [name for name in order if name not in gone]
        d.seek(places[-1][0])
        d.next()
        assert d.next() is None
    if EXT4:
        return
    with Directory(".") as d:  # "." and ".." come first, with offsets that stay
        assert [d.next(), d.next()] == [".", ".."]


def listing_while_it_changes():
    """What is there from beginning to end is listed exactly once, by two readers at a time."""
    stay = {f"stay{i:05}" for i in range(3000)}
    for name in stay:
        put(name)
    stop = threading.Event()
    problems = []

    def change():
        i = 0
        while not stop.is_set():
            put(f"new{i % 500}")
            if i >= 250:
                try:
                    os.unlink(f"new{(i - 250) % 500}")
                except FileNotFoundError:
                    pass
            os.rename(f"new{i % 500}", f"moved{i % 100}")
            i += 1

    def read():
        for _ in range(8):
            with Directory(".") as d:
                names = d.rest()
            found = [name for name in names if name in stay]
            if len(found) != len(stay) or set(found) != stay:
                problems.append(f"{len(found)} of {len(stay)}, {len(set(found))} different ones")

    changer = threading.Thread(target=change)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in [changer] + readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    changer.join()
    assert not problems, problems


def removing_while_listing():
    fill(5000)
    with Directory(".") as d:
        count = 0
        while (name := d.next()) is not None:
            if name not in (".", ".."):
                os.unlink(name)
                count += 1
    assert count == 5000 and os.listdir(".") == []
    # A directory that was removed while it was open is empty.
    os.mkdir("gone")
    fill(10, "gone")
    with opened("gone") as fd, Directory("gone") as d:
        d.next()
        for name in os.listdir("gone"):
            os.unlink(f"gone/{name}")
        os.rmdir("gone")
        assert os.listdir(fd) == []
        assert os.fstat(fd).st_nlink == 0
        fails(errno.ENOENT, os.mkdir, "x", dir_fd=fd)


def very_large_and_sparse():
    size = 2 * TIB if not EXT4 else TIB
    with opened("file", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"begin", 0)
        os.pwrite(fd, b"end", size - 3)
        assert os.fstat(fd).st_size == size and os.fstat(fd).st_blocks <= 64
        assert os.lseek(fd, 10_000, os.SEEK_DATA) >= size - 65536
        assert os.lseek(fd, 0, os.SEEK_HOLE) <= 65536
        assert os.pread(fd, 10, size - 3) == b"end" and os.pread(fd, 5, 0) == b"begin"
        assert os.pread(fd, 100, size // 2) == bytes(100)
        os.ftruncate(fd, size // 2)
        os.ftruncate(fd, size)
        assert os.pread(fd, 10, size - 3) == bytes(3)
        assert os.lseek(fd, 0, os.SEEK_END) == size
    with opened("file", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"appended")
    assert os.stat("file").st_size == size + 8
    os.truncate("file", 3)
    assert get("file") == b"beg"
    for i in range(3):
        with opened("file", os.O_RDWR) as fd:
            for at in range(20):
                os.pwrite(fd, b"x", at * (size // 20))
    os.unlink("file")
    if not EXT4:
        with opened("last", os.O_RDWR | os.O_CREAT) as fd:
            os.pwrite(fd, b"x", (1 << 63) - 2)
            assert os.fstat(fd).st_size == (1 << 63) - 1
            fails((errno.EFBIG, errno.EINVAL), os.pwrite, fd, b"x", (1 << 63) - 1)
            assert os.pread(fd, 1, (1 << 63) - 2) == b"x"
        os.unlink("last")


# ---- Handles ----

class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_char * 128)]


def handle_of(path):
    handle, mount = Handle(bytes=128), ctypes.c_int()
    raw("name_to_handle_at", AT_FDCWD, os.fsencode(path), ctypes.byref(handle),
        ctypes.byref(mount), 0)
    return handle


def open_handle(handle, flags=os.O_RDONLY):
    with opened(".") as fd:
        return raw("open_by_handle_at", fd, ctypes.byref(handle), flags)


def read_handle(handle):
    fd = open_handle(handle)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def handles():
    os.makedirs("a/b/c")
    put("a/b/c/file", b"by its handle")
    put("a/gone", b"gone")
    os.link("a/b/c/file", "a/linked")
    file, gone, directory = handle_of("a/b/c/file"), handle_of("a/gone"), handle_of("a/b/c")
    assert read_handle(file) == b"by its handle"
    drop_caches()
    assert read_handle(file) == b"by its handle"
    drop_caches()
    fd = open_handle(directory, os.O_RDONLY | os.O_DIRECTORY)
    assert os.listdir(fd) == ["file"]
    assert os.stat("..", dir_fd=fd).st_ino == os.stat("a/b").st_ino
    os.close(fd)
    os.rename("a/b", "moved")
    os.rename("moved/c/file", "moved/renamed")
    drop_caches()
    assert read_handle(file) == b"by its handle"
    fd = open_handle(directory, os.O_RDONLY | os.O_DIRECTORY)
    assert os.listdir(fd) == []
    assert os.readlink(f"/proc/self/fd/{fd}").endswith("/handles/moved/c")
    os.close(fd)
    os.unlink("moved/renamed")
    drop_caches()
    assert read_handle(file) == b"by its handle"  # it has another name
    with opened("a/gone"):
        os.unlink("a/gone")
    drop_caches()
    fails(errno.ESTALE, read_handle, gone)
    handle = Handle.from_buffer_copy(file)
    ctypes.memset(ctypes.byref(handle, 8), 0x5a, 8)  # of no inode that ever was
    fails(errno.ESTALE, read_handle, handle)
    with opened("saved", os.O_WRONLY | os.O_CREAT) as fd:  # for after a remount
        os.write(fd, b"".join(struct.pack("Ii128s", h.bytes, h.type, bytes(memoryview(h))[8:])
                              for h in (file, directory, gone)))


def kept_handles():
    os.chdir("../handles")
    file, directory, gone = (Handle.from_buffer_copy(get("saved")[i * 136:(i + 1) * 136])
                             for i in range(3))
    assert read_handle(file) == b"by its handle"
    fd = open_handle(directory, os.O_RDONLY | os.O_DIRECTORY)
    assert os.readlink(f"/proc/self/fd/{fd}").endswith("/handles/moved/c")
    os.close(fd)
    fails(errno.ESTALE, read_handle, gone)
    with opened("a/linked") as fd:
        os.unlink("a/linked")
        assert os.read(fd, 5) == b"by it"
    drop_caches()
    fails(errno.ESTALE, read_handle, file)


TESTS = (telling_and_seeking, listing_while_it_changes, removing_while_listing,
         very_large_and_sparse, handles)

if __name__ == "__main__":
    EXT4 = sys.argv[2:] == ["ext4"]
    posixlib.run(sys.argv[1], (kept_handles,) if sys.argv[2:] == ["again"] else TESTS)
