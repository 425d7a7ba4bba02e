# SPDX-License-Identifier: MIT
"""Counts the requests that common operations make. budget.py MOUNTPOINT PHASE [exact] [noxattr]

The kernel may drop what it has cached at any moment (other tests make it do so), which costs
requests but never saves any; so each operation is counted in several rounds, and the cheapest
counts. PHASE is "warm", or "cold" on a fresh mount of what "warm" left.
"""
import json
import os
import sys

TOP, PHASE = sys.argv[1], sys.argv[2]
EXACT = "exact" in sys.argv[3:]
NOXATTR = "noxattr" in sys.argv[3:]
FILES, ROUNDS = 40, 6
UNCOUNTED = {"FORGET", "BATCH_FORGET", "INTERRUPT"}  # batched, and at no fixed time
DATA = b"x" * 8192

# Requests of each operation. Where a file is written, GETXATTR looks for security.capability: the
# kernel forgets that there is none whenever it refreshes the attributes, and asks before a write
# unless every GETXATTR is refused, as with -o noxattr; then all of these are left out.
BUDGET = {
    "create, write, close": {"LOOKUP": 1, "CREATE": 1, "GETXATTR": 1, "WRITE": 1, "GETATTR": 1},
    "create, write, fsync, close": {"LOOKUP": 1, "CREATE": 1, "GETXATTR": 1, "WRITE": 1,
                                    "FSYNC": 1, "GETATTR": 1},
    "1 MiB": {"LOOKUP": 1, "CREATE": 1, "GETXATTR": 1, "WRITE": 1, "GETATTR": 1},
    "stat after a write": {"GETATTR": 1},
    "stat, warm": {},
    "open, read, close, warm": {},
    "overwrite with O_TRUNC": {"SETATTR": 1, "GETXATTR": 2, "WRITE": 1},
    "append": {"WRITE": 1},
    "mkdir": {"LOOKUP": 1, "MKDIR": 1, "GETATTR": 1},
    "rmdir": {"RMDIR": 1, "GETATTR": 1},
    "write temporary, rename over": {"LOOKUP": 2, "CREATE": 1, "GETXATTR": 1, "WRITE": 1,
                                     "GETATTR": 2, "RENAME": 1},
    "as tar": {"LOOKUP": 1, "CREATE": 1, "GETXATTR": 2, "WRITE": 1, "SETATTR": 3, "GETATTR": 1},
    "as cp": {"LOOKUP": 2, "CREATE": 1, "GETXATTR": 1, "WRITE": 1, "GETATTR": 1},
    "find": {},
    "ls -l": {},
    "unlink": {"UNLINK": 1, "GETATTR": 1},
    "stat, cold": {"LOOKUP": 1},
    "open, read, close, cold": {"READ": 1},
}
if NOXATTR:
    for counts in BUDGET.values():
        counts.pop("GETXATTR", None)


def requests():
    with open(f"{TOP}/.kegfs/stats.json") as file:
        return json.load(file)["requests"]


def difference(after, before):
    return {op: after[op] - before.get(op, 0) for op in after
            if after[op] != before.get(op, 0) and op not in UNCOUNTED}


def write(path, flags, data=DATA, first=None, then=None):
    fd = os.open(path, flags, 0o644)
    if first:
        first(fd)
    assert os.write(fd, data) == len(data)
    if then:
        then(fd)
    os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY)
    assert len(os.read(fd, 65536)) > 0
    os.close(fd)


def as_tar(fd):
    os.utime(fd, (1, 1))
    os.fchown(fd, os.getuid(), os.getgid())
    os.fchmod(fd, 0o600)


NEW = os.O_CREAT | os.O_WRONLY | os.O_TRUNC


def rename_over(path):
    write(path + ".new", NEW)
    os.rename(path + ".new", path)


def as_cp(path):
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    write(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, first=os.fstat)


def find(directory):
    for _ in os.scandir(directory):
        pass


def ls(directory):
    for entry in os.scandir(directory):
        entry.stat(follow_symlinks=False)


WARM = [  # what, its files, what it does to each (a directory: to all)
    ("create, write, close", "a", lambda p: write(p, NEW)),
    ("create, write, fsync, close", "b", lambda p: write(p, NEW, then=os.fsync)),
    ("1 MiB", "c", lambda p: write(p, NEW, b"y" * (1 << 20))),
    ("stat after a write", "a", os.stat),
    ("stat, warm", "a", os.stat),
    ("open, read, close, warm", "a", read),
    ("overwrite with O_TRUNC", "a", lambda p: write(p, NEW)),
    ("append", "a", lambda p: write(p, os.O_WRONLY | os.O_APPEND, b"z" * 100)),
    ("mkdir", "d", os.mkdir),
    ("rmdir", "d", os.rmdir),
    ("write temporary, rename over", "a", rename_over),
    ("as tar", "t", lambda p: write(p, os.O_CREAT | os.O_WRONLY | os.O_EXCL, then=as_tar)),
    ("as cp", "u", as_cp),
    ("find", None, find),
    ("ls -l", None, ls),
    ("unlink", "b", os.unlink),
]
COLD = [("stat, cold", "a", os.stat), ("open, read, close, cold", "a", read)]


def run(directory, names, action):
    """Requests for each file, without those of looking at the statistics."""
    paths = [f"{directory}/{names}{i}" for i in range(FILES)] if names else [directory]
    requests()
    first = requests()
    before = requests()
    for path in paths:
        action(path)
    after = requests()
    own = difference(before, first)
    total = difference(after, before)
    return {op: (n - own.get(op, 0)) / FILES for op, n in total.items() if n != own.get(op, 0)}


def main():
    cheapest = {}
    for round_ in range(ROUNDS):
        directory = f"{TOP}/budget{round_}"
        if PHASE == "warm":
            os.mkdir(directory)
            os.stat(directory)
        else:
            os.scandir(directory).close()
        for what, names, action in WARM if PHASE == "warm" else COLD:
            counts = run(directory, names, action)
            if what not in cheapest or sum(counts.values()) < sum(cheapest[what].values()):
                cheapest[what] = counts
    wrong = 0
    for what, counts in cheapest.items():
        got = {op: round(n) for op, n in counts.items() if round(n)}
        within = all(n <= BUDGET[what].get(op, 0) for op, n in got.items())
        wrong += not (got == BUDGET[what] if EXACT else within)
        mark = "" if got == BUDGET[what] else f"   budget: {BUDGET[what]}"
        print(f"{what:30} {sum(counts.values()):5.2f}  {got}{mark}")
    sys.exit(f"{wrong} over or under the budget" if wrong else 0)


main()
