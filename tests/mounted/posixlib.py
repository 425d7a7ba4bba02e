# SPDX-License-Identifier: MIT
"""What the tests of calls share: other users, calls that os has not, and a runner.

A test is a function without arguments; it has a directory of its own, 0755 and root's, to run in.
It may run on any file system: what is expected was checked on ext4.
"""
import contextlib
import ctypes
import errno
import os
import struct
import sys
import traceback

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x400, 0x1000
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT = 1, 2, 8, 16, 32
ALICE, BOB, TEAM = 2001, 2002, 3001  # users, with groups of the same numbers, and a group


def fails(codes, call, *args, **kw):
    """The call fails with this errno, or one of these."""
    codes = codes if isinstance(codes, tuple) else (codes,)
    names = "|".join(errno.errorcode[code] for code in codes)
    try:
        call(*args, **kw)
    except OSError as error:
        assert error.errno in codes, f"{errno.errorcode[error.errno]}, not {names}"
        return
    raise AssertionError(f"no {names}")


def raw(name, *args):
    """A call of the C library that returns -1 and errno."""
    got = getattr(libc, name)(*args)
    if got < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return got


def renameat2(old, new, flags):
    raw("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def linkat(old_fd, old, new, flags):
    raw("linkat", old_fd, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def fallocate(fd, mode, offset, length):
    raw("fallocate", fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))


def statx(path, flags=0, mask=0xfff):
    """(mask, birth time in ns, size); mask says what was answered."""
    buf = ctypes.create_string_buffer(256)
    raw("statx", AT_FDCWD, os.fsencode(path), flags, mask, buf)
    size, = struct.unpack_from("<Q", buf, 0x28)
    seconds, ns = struct.unpack_from("<qI", buf, 0x50)
    return struct.unpack_from("<I", buf)[0], seconds * 10**9 + ns, size


def put(path, data=b"", mode=None):
    with open(path, "wb") as file:
        file.write(data)
    if mode is not None:
        os.chmod(path, mode)


def get(path):
    with open(path, "rb") as file:
        return file.read()


@contextlib.contextmanager
def opened(path, flags=os.O_RDONLY, mode=0o644):
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def forked(call, *args):
    """Runs the call in a child; it must not fail there."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            call(*args)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, "failed in a child"


def become(uid, groups=()):
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def as_user(uid, call, *args, groups=()):
    def child():
        become(uid, groups)
        call(*args)

    forked(child)


def own(path, uid, mode=None):
    os.chown(path, uid, uid, follow_symlinks=False)
    if mode is not None:
        os.chmod(path, mode)


def bits(path):
    return os.stat(path).st_mode & 0o7777


def run(root, tests):
    os.umask(0o022)
    for test in tests:
        print(test.__name__, flush=True)
        directory = os.path.join(root, test.__name__)
        os.mkdir(directory)
        os.chmod(directory, 0o755)
        os.chdir(directory)
        try:
            test()
        finally:
            os.chdir("/")
