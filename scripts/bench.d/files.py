# SPDX-License-Identifier: MIT
"""One operation at a time: kegfs beside ext4 and beside what FUSE alone costs."""
import os

from base import fresh_directory, fsbench, on_ext4, say
from places import Directory, Ext4, Kegfs, Null

FASTER = {"truncate", "replace", "list_cold", "read_cold", "churn"}  # than native ext4

# Key, what it says, operation, directory, share of the files, clients. The rest is in measure().
STEPS = [
    ("create", "create, write, close", "create", "a", 1, 1),
    ("create_2", "the same, two clients", "create", "b", 0.5, 2),
    ("stat", "stat, warm", "stat", "a", 1, 1),
    ("read", "open, read, close, warm", "read", "a", 1, 1),
    ("append", "append 100 B", "append", "a", 1, 1),
    ("truncate", "overwrite with O_TRUNC", "truncate", "a", 1, 1),
    ("replace", "write temporary, rename over", "replace", "a", 1, 1),
    ("stat_cold", "stat, cold", "stat", "a", 1, 1),
    ("read_cold", "open, read, close, cold", "read", "a", 1, 1),
    ("find_cold", "find, cold, a file", "find", "a", 1, 1),
    ("list_cold", "ls -l, cold, a file", "list", "a", 1, 1),
    ("tar", "tar's pattern", "tar", "c", 1, 1),
    ("cp", "cp's pattern", "cp", "d", 1, 1),
    ("pieces", "64 KiB in 16 writes", "pieces", "e", 0.25, 1),
    ("mkdir", "mkdir", "mkdir", "g", 1, 1),
    ("rmdir", "rmdir", "rmdir", "g", 1, 1),
    ("unlink", "unlink", "unlink", "a", 1, 1),
    ("churn", "churn: create 8 KiB, remove an older one", "churn", "h", 1, 1),
]
CPU = {"create": 6, "read_cold": 4, "stat_cold": 1}  # us of the daemon, less the transport's
PAIRS = [("kegfs uring", "null uring"), ("kegfs uring noxattr", "null uring noxattr"),
         ("kegfs spin", "null spin")]  # ours, and the floor that makes the same requests


def measure(place, step, options, figures):
    key, _, operation, directory, share, clients = step
    if not options.wanted(key):
        return
    files = int(options.size_or(4000) * share)
    path = f"{place.path}/{directory}"
    os.makedirs(path, exist_ok=True)
    warm = operation in ("stat", "read") and not key.endswith("_cold")
    if warm:
        fsbench(operation, path, files)
    if key.endswith("_cold"):
        place.cold()
    cpu = place.cpu_ns() if key in CPU and hasattr(place, "cpu_ns") else None
    done, seconds = fsbench(operation, path, files, clients, least=200 if warm else 0)
    figures.add(key, place.name, seconds / done * 1e6)
    if cpu is not None:
        figures.add(f"cpu_{key}", place.name, (place.cpu_ns() - cpu) / done / 1e3)


def one_round(place, options, figures):
    place.open()
    if options.only and not options.wanted("create"):  # what the others work on
        os.makedirs(f"{place.path}/a", exist_ok=True)
        fsbench("create", f"{place.path}/a", options.size_or(4000))
    for step in STEPS:
        measure(place, step, options, figures)
    if isinstance(place, (Kegfs, Null)):
        place.close() if isinstance(place, Kegfs) else fresh_directory(place.path)


def durable(options, figures):
    ours = Kegfs(options.disk)
    theirs = (Directory("ext4", f"{options.disk}/plain") if on_ext4(options.disk)
              else Ext4(options.disk, 2048))
    total = options.size_or(4000)
    for i in options.each_round():
        say(f"files: durable, round {i + 1}")
        for place in (ours, theirs):
            place.open()
            for clients, files in ((1, total // 2), (4, total // 4), (16, total // 8)):
                path = f"{place.path}/{clients}"
                os.mkdir(path)
                done, seconds = fsbench("durable", path, files, clients)
                figures.add(f"durable_{clients}", place.name, done / seconds, "operations/s")
            place.close()
    for clients, least in ((1, 1.1), (4, 2), (16, 4)):
        figures.compare(f"create, write, fsync 8 KiB on disk, clients: {clients}",
                        f"durable_{clients}", "kegfs", "ext4", least=least)


def operations(options, figures):
    places = [Kegfs(options.ram, "uring"), Null(options.ram, "uring"), Ext4(options.ram, 4096),
              Kegfs(options.ram, "uring", "noxattr"), Null(options.ram, "uring", "noxattr"),
              Kegfs(options.ram, "spin"), Null(options.ram, "spin")]
    for i in options.each_round():
        for place in places:
            say(f"files: round {i + 1}, {place.name}")
            one_round(place, options, figures)
        for ours, floor in PAIRS[:2]:
            extra_cpu(figures, ours, floor)
    for place in places:
        place.close()
    for ours, floor in PAIRS:
        judge(figures, ours, floor)
    for ours, _ in PAIRS[:2]:
        for key, limit in CPU.items():
            figures.compare(f"daemon's CPU less the null daemon's: {key}", f"own_cpu_{key}", ours,
                            limit=limit)


def judge(figures, ours, floor):
    for key, text, *_ in STEPS:
        # The floor has no churn, only creates and deletes.
        figures.compare(text, key, ours, floor, most=1.25)
    for key, text, *_ in STEPS:
        figures.compare(text, key, ours, "ext4", most=1.0 if key in FASTER else None)


def run_mode(options, figures):
    if any(options.wanted(step[0]) for step in STEPS):
        operations(options, figures)
    if options.wanted("durable"):
        durable(options, figures)
    figures.note("Stores and ext4's image are on one tmpfs; the null filesystem keeps files in "
                 "memory. passthrough_ll is left out: Debian's fuse3 has none.")


def extra_cpu(figures, ours, floor):
    """The daemon's CPU beyond what the transport takes, of the last round."""
    for key in CPU:
        pair = [figures.values.get((f"cpu_{key}", place)) for place in (ours, floor)]
        if all(pair):
            figures.add(f"own_cpu_{key}", ours, pair[0][-1] - pair[1][-1])
