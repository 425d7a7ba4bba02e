#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Random changes of one tree by several processes at a time.

    names.py run DIRECTORY SEED PROCESSES OPERATIONS   operations of each process
    names.py list DIRECTORY                            the tree, a line for each name

The processes share all directories and names, so they get in each other's way: an operation may
fail, but only with an error that such a race explains. What each of them does is drawn from the
seed; in which order they do it is not. The list has all that can be seen of an inode, its contents
included, so two lists tell whether anything changed.
"""
import ctypes
import errno
import hashlib
import os
import random
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, NOREPLACE, EXCHANGE = -100, 1, 2
KEEP_SIZE, PUNCH_HOLE = 1, 2
NAMES = [f"n{i}" for i in range(12)]
DEPTH = 3
# What another process may have done to a name meanwhile; all else is a failure of the file system.
RACES = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENODATA,
         errno.EINVAL, errno.EPERM, errno.ELOOP, errno.EMLINK, errno.ESTALE}


def checked(result, what):
    if result:
        raise OSError(ctypes.get_errno(), what)


class Process:
    def __init__(self, top, seed):
        self.rng, self.top = random.Random(seed), top
        self.did = 0  # operations that succeeded

    def path(self):
        depth = self.rng.choice((1, 1, 2, 2, 3))
        return os.path.join(self.top, *self.rng.choices(NAMES, k=min(depth, DEPTH)))

    def with_file(self, flags, use):
        fd = os.open(self.path(), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | flags, 0o644)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                use(fd)
        finally:
            os.close(fd)

    def data(self):
        return self.rng.randbytes(self.rng.choice((1, 100, 5000, 70000)))

    # ---- Operations ----

    def create(self):
        flags = self.rng.choice((os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC))
        self.with_file(flags, lambda fd: os.write(fd, self.data()))

    def replace(self):
        def pieces(fd):
            for _ in range(self.rng.randrange(4)):
                os.write(fd, self.data())
        self.with_file(os.O_TRUNC, pieces)

    def write(self):
        self.with_file(0, lambda fd: os.pwrite(fd, self.data(), self.rng.randrange(200000)))

    def append(self):
        self.with_file(os.O_APPEND, lambda fd: os.write(fd, self.data()))

    def truncate(self):
        self.with_file(0, lambda fd: os.ftruncate(fd, self.rng.choice((0, 1, 3000, 100000))))

    def punch(self):
        def hole(fd):
            number = ctypes.c_int64
            checked(libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, number(self.rng.randrange(100000)),
                                   number(self.rng.randrange(1, 70000))), "punch")
        self.with_file(0, hole)

    def read(self):
        self.with_file(0, lambda fd: os.pread(fd, 1 << 20, self.rng.randrange(1000)))

    def sync(self):
        self.with_file(0, os.fsync)

    def mkdir(self):
        os.mkdir(self.path())

    def rmdir(self):
        os.rmdir(self.path())

    def unlink(self):
        os.unlink(self.path())

    def unlink_open(self):
        path = self.path()
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.unlink(path)
                os.pwrite(fd, self.data(), 0)
                os.ftruncate(fd, 10)
        finally:
            os.close(fd)

    def link(self):
        os.link(self.path(), self.path(), follow_symlinks=False)

    def symlink(self):
        os.symlink("x" * self.rng.randrange(1, 256), self.path())

    def fifo(self):
        os.mkfifo(self.path())

    def rename(self):
        flags = self.rng.choice((0, 0, 0, NOREPLACE, EXCHANGE))
        checked(libc.renameat2(AT_FDCWD, self.path().encode(), AT_FDCWD, self.path().encode(),
                               flags), "rename")

    def replace_by_rename(self):
        path = self.path()
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(self.data())
        try:
            os.rename(temporary, path)
        except OSError:
            self.give_up(temporary)
            raise

    @staticmethod
    def give_up(temporary):
        try:
            os.unlink(temporary)
        except OSError as error:  # its directory was renamed
            if error.errno not in RACES:
                raise

    def chmod(self):
        os.chmod(self.path(), self.rng.choice((0o600, 0o644, 0o755)))

    def times(self):
        at = self.rng.randrange(1 << 60)
        os.utime(self.path(), ns=(at, at + 1), follow_symlinks=False)

    def set_attribute(self):
        os.setxattr(self.path(), f"trusted.{self.rng.randrange(4)}" if os.getuid() == 0
                    else f"user.{self.rng.randrange(4)}", self.data()[:3000], follow_symlinks=False)

    def remove_attribute(self):
        os.removexattr(self.path(), f"trusted.{self.rng.randrange(4)}" if os.getuid() == 0
                       else f"user.{self.rng.randrange(4)}", follow_symlinks=False)

    def list_directory(self):
        with os.scandir(self.path()) as entries:
            for entry in entries:
                if entry.name in (".", ".."):
                    raise AssertionError(entry.name)

    OPERATIONS = ((create, 14), (replace, 8), (write, 10), (append, 6), (truncate, 6), (punch, 4),
                  (read, 4), (sync, 1), (mkdir, 14), (rmdir, 4), (unlink, 6), (unlink_open, 4),
                  (link, 8), (symlink, 4), (fifo, 2), (rename, 14), (replace_by_rename, 6),
                  (chmod, 4), (times, 3), (set_attribute, 4), (remove_attribute, 2),
                  (list_directory, 4))

    def run(self, operations):
        functions, weights = zip(*self.OPERATIONS)
        for function in self.rng.choices(functions, weights, k=operations):
            try:
                function(self)
                self.did += 1
            except OSError as error:
                if error.errno not in RACES:
                    raise
        return self.did


def run(directory, seed, processes, operations):
    children = []
    for i in range(processes):
        pid = os.fork()
        if pid == 0:
            did = Process(directory, f"{seed} {i}").run(operations)
            # A run in which nearly everything failed would have tried nothing.
            os._exit(0 if did > operations // 10 else 3)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        sys.exit(f"FAIL: exit codes {codes}")


def contents(path, status):
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return "-"
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def show(directory):
    for base, directories, files in os.walk(directory):
        directories.sort()
        for name in sorted(directories + files):
            path = os.path.join(base, name)
            s = os.lstat(path)
            attributes = [(a, hashlib.sha256(os.getxattr(path, a, follow_symlinks=False)).hexdigest())
                          for a in sorted(os.listxattr(path, follow_symlinks=False))]
            print(os.path.relpath(path, directory), s.st_ino, oct(s.st_mode), s.st_nlink, s.st_uid,
                  s.st_gid, s.st_size, s.st_blocks, s.st_mtime_ns, s.st_ctime_ns,
                  contents(path, s), attributes)


if sys.argv[1] == "run":
    run(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
else:
    show(sys.argv[2])
