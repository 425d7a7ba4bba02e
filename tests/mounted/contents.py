#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Random changes of file contents, against a model in memory.

    contents.py run DIRECTORY MODELS SEED OPERATIONS   goes on from the models of the last run
    contents.py verify DIRECTORY MODELS                compares every file with its model

A file's model is its bytes, kept in MODELS/NAME from one run to the next. Every operation is drawn
from the seed. Reads are compared at once, through read(2) and through a mapping; sizes after every
operation that may change them. All files are closed at the end of a run, so that with -o
commit=close, too, everything is in the log by then; those that are empty are synced first. On a difference the last operations on that
file are printed.
"""
import ctypes
import hashlib
import mmap
import os
import random
import sys
from collections import deque

libc = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
PAGE = 4096
SIZE_MAX = {"small": 20000, "middle": 300000, "large": 2 << 20}
LENGTH_MAX = {"small": 3000, "middle": 66000, "large": 250000}


def fallocate(fd, mode, offset, length):
    number = ctypes.c_int64
    if libc.fallocate(fd, mode, number(offset), number(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


class File:
    def __init__(self, directory, models, name, rng):
        self.path, self.model_path = os.path.join(directory, name), os.path.join(models, name)
        self.rng, self.max, self.length = rng, SIZE_MAX[name], LENGTH_MAX[name]
        self.done = deque(maxlen=40)  # the last operations, in words
        try:
            with open(self.model_path, "rb") as file:
                self.model = bytearray(file.read())
        except FileNotFoundError:
            self.model = bytearray()
        self.fd = -1

    def open(self, flags=0):
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | flags, 0o644)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def save(self):
        if not self.model:  # a truncation to zero alone may wait, with -o writeback for a minute
            os.fsync(self.fd)
        self.close()
        with open(self.model_path, "wb") as file:
            file.write(self.model)

    # ---- What is drawn ----

    def data(self, length):
        # Runs of one byte show where the bytes of a wrong place came from.
        if self.rng.random() < 0.3:
            return bytes([self.rng.randrange(1, 256)]) * length
        return self.rng.randbytes(length)

    def draw(self, end):
        """A part of [0, end), often at a multiple of a page or of the 64 KiB of an extent."""
        length = self.rng.randrange(1, self.length)
        offset = self.rng.randrange(0, max(end, 1))
        unit = self.rng.choice((1, 1, PAGE, 65536))
        offset -= offset % unit
        if unit > 1 and self.rng.random() < 0.5:
            length = max(length - length % PAGE, 1)
        return offset, min(length, max(end - offset, 1))

    def put(self, offset, data):
        if len(self.model) < offset:
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset:offset + len(data)] = data

    # ---- Operations ----

    def write(self):
        offset, length = self.draw(self.max)
        data = self.data(length)
        self.note("write", offset, length)
        assert os.pwrite(self.fd, data, offset) == length
        self.put(offset, data)

    def append(self):
        data = self.data(self.rng.randrange(1, 300))
        if len(self.model) + len(data) <= self.max:
            self.note("append", len(self.model), len(data))
            assert os.pwrite(self.fd, data, len(self.model)) == len(data)
            self.put(len(self.model), data)

    def read(self):
        offset, length = self.draw(len(self.model) + 100)
        self.note("read", offset, length)
        self.compare(offset, os.pread(self.fd, length, offset), length)

    def map(self, write):
        if not self.model:
            return
        offset, length = self.draw(len(self.model))
        length = min(length, len(self.model) - offset)
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        self.note("write mapped" if write else "read mapped", offset, length)
        with mmap.mmap(self.fd, offset - start + length, offset=start) as area:
            if write:
                data = self.data(length)
                area[offset - start:] = data
                self.put(offset, data)
                if self.rng.random() < 0.3:
                    area.flush()
            else:
                self.compare(offset, area[offset - start:], length)

    def map_write(self):
        self.map(True)

    def map_read(self):
        self.map(False)

    def truncate(self):
        size = self.rng.choice((0, self.rng.randrange(self.max), self.rng.randrange(self.max)))
        self.note("truncate", size, 0)
        os.ftruncate(self.fd, size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def rewrite(self):
        self.note("open(O_TRUNC)", 0, 0)
        self.close()
        self.open(os.O_TRUNC)
        del self.model[:]

    def reserve(self):
        offset, length = self.draw(self.max)
        keep = self.rng.random() < 0.5
        self.note("fallocate, keep size" if keep else "fallocate", offset, length)
        fallocate(self.fd, KEEP_SIZE if keep else 0, offset, length)
        if not keep:
            self.model.extend(bytes(max(offset + length - len(self.model), 0)))

    def punch(self):
        offset, length = self.draw(self.max)
        self.note("punch hole", offset, length)
        fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
        self.zero_model(offset, length)

    def zero(self):
        offset, length = self.draw(self.max)
        keep = self.rng.random() < 0.5
        self.note("zero range, keep size" if keep else "zero range", offset, length)
        fallocate(self.fd, ZERO_RANGE | (KEEP_SIZE if keep else 0), offset, length)
        if not keep:
            self.model.extend(bytes(max(offset + length - len(self.model), 0)))
        self.zero_model(offset, length)

    def zero_model(self, offset, length):
        end = min(offset + length, len(self.model))
        if offset < end:
            self.model[offset:end] = bytes(end - offset)

    def copy(self):
        offset, length = self.draw(max(len(self.model), 1))
        to = self.rng.randrange(self.max)
        length = min(length, len(self.model) - offset, self.max - to)
        if length <= 0 or abs(to - offset) < length:  # the two parts must not overlap
            return
        self.note(f"copy to {to:#x}", offset, length)
        copied = 0
        while copied < length:
            n = os.copy_file_range(self.fd, self.fd, length - copied, offset + copied, to + copied)
            assert n > 0
            copied += n
        self.put(to, self.model[offset:offset + length])

    def seek(self):
        """What SEEK_DATA passes over must be zeros; beyond that any answer is allowed."""
        if not self.model:
            return
        offset = self.rng.randrange(len(self.model))
        self.note("seek data", offset, 0)
        try:
            found = os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError:
            found = len(self.model)
        assert offset <= found <= len(self.model), found
        if any(self.model[offset:found]):
            self.fail(f"SEEK_DATA from {offset:#x} says {found:#x}, and there is data between")

    def reopen(self):
        self.note("close, open", 0, 0)
        self.close()
        self.open()

    def sync(self):
        self.note("fsync", 0, 0)
        os.fsync(self.fd)

    def forget(self):
        """Has the kernel drop the pages that it need not keep."""
        self.note("drop the cache", 0, 0)
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    OPERATIONS = ((write, 20), (append, 8), (read, 16), (map_write, 14), (map_read, 10),
                  (truncate, 6), (rewrite, 2), (reserve, 4), (punch, 8), (zero, 6), (copy, 6),
                  (seek, 4), (reopen, 4), (sync, 2), (forget, 4))

    def step(self):
        operations, weights = zip(*self.OPERATIONS)
        self.rng.choices(operations, weights)[0](self)
        size = os.fstat(self.fd).st_size
        if size != len(self.model):
            self.fail(f"the size is {size:#x}, not {len(self.model):#x}")

    # ---- Judging ----

    def note(self, what, offset, length):
        self.done.append(f"{what:22} {offset:#9x} {length:#8x}   size {len(self.model):#x}")

    def compare(self, offset, got, length):
        want = bytes(self.model[offset:offset + length])
        if got == want:
            return
        if len(got) != len(want):
            self.fail(f"{len(got)} bytes at {offset:#x}, not {len(want)}")
        first = next(i for i, (a, b) in enumerate(zip(got, want)) if a != b)
        last = next(i for i in range(len(got) - 1, -1, -1) if got[i] != want[i])
        self.fail(f"[{offset + first:#x}, {offset + last + 1:#x}] differs: "
                  f"{got[first:first + 16].hex()}, not {want[first:first + 16].hex()}")

    def verify(self):
        with open(self.path, "rb") as file:
            self.compare(0, file.read(), max(len(self.model), 1))

    def fail(self, what):
        for line in self.done:
            print(line, file=sys.stderr)
        sys.exit(f"FAIL: {self.path}: {what}")


def main():
    command, directory, models = sys.argv[1:4]
    seed = sys.argv[4] if command == "run" else "0"
    files = [File(directory, models, name, random.Random(f"{seed} {name}")) for name in SIZE_MAX]
    if command == "verify":
        for file in files:
            file.verify()
        digest = hashlib.sha256(b"".join(bytes(file.model) for file in files)).hexdigest()
        print(f"{digest[:16]} {[len(file.model) for file in files]}")
        return
    for file in files:
        file.open()
    for _ in range(int(sys.argv[5]) // len(files)):
        for file in files:
            file.step()
    for file in files:
        file.save()


main()
