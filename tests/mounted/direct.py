#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""direct.py FILE ROUNDS: asynchronous direct writes beside readers of the page cache.

When such a write is done, a read through the page cache must see it, although others read the same
pages meanwhile. (The kernel drops the pages behind a direct write only if it waits for it.)
"""
import ctypes
import mmap
import os
import platform
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
SIZE = 640 << 10
IOCB_CMD_PWRITE = 1
# setup, submit, getevents
CALLS = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}.get(platform.machine())


def call(number, *args):
    result = libc.syscall(ctypes.c_long(number), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


def write(context, fd, buffer):
    """One asynchronous write of the buffer to the beginning of the file, and its end."""
    setup, submit, getevents = CALLS
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    block = ctypes.create_string_buffer(struct.pack(
        "=QIIHhIQQqQII", 0, 0, 0, IOCB_CMD_PWRITE, 0, fd, address, len(buffer), 0, 0, 0, 0))
    blocks = (ctypes.c_void_p * 1)(ctypes.addressof(block))
    event = (ctypes.c_int64 * 4)()
    assert call(submit, context, ctypes.c_long(1), blocks) == 1
    assert call(getevents, context, ctypes.c_long(1), ctypes.c_long(1), event, None) == 1
    assert event[2] == len(buffer), f"the write returned {event[2]}"


def read_for_ever(path):
    fd = os.open(path, os.O_RDONLY)
    while True:
        os.pread(fd, SIZE, 0)


def compare(path, rounds):
    context = ctypes.c_ulong(0)
    call(CALLS[0], ctypes.c_long(4), ctypes.byref(context))
    direct, cached = os.open(path, os.O_RDWR | os.O_DIRECT), os.open(path, os.O_RDONLY)
    buffer = mmap.mmap(-1, SIZE)  # is aligned
    for i in range(rounds):
        byte = bytes([1 + i % 255])
        buffer[:] = byte * SIZE
        write(context, direct, buffer)
        got = os.pread(cached, SIZE, 0)
        if got != byte * SIZE:
            wrong = next(k for k in range(SIZE) if got[k:k + 1] != byte)
            sys.exit(f"FAIL: round {i}: {got[wrong]}, not {byte[0]}, at {wrong:#x}")


def main():
    path, rounds = sys.argv[1], int(sys.argv[2])
    if not CALLS:
        return
    with open(path, "wb") as file:
        file.write(bytes(SIZE))
    readers = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            read_for_ever(path)
        readers.append(pid)
    try:
        compare(path, rounds)
    finally:
        for pid in readers:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


main()
