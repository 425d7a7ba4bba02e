# SPDX-License-Identifier: MIT
"""Counts of what an operation takes: the same on every machine and under any load, so they are
held against limits. Requests by opcode are held by tests/mounted/budget.sh, exactly. One figure of
time is among them, the clock of kegbench: see fastest()."""
import json
import os
import re
import subprocess
import time

from base import KEGBENCH, fresh_directory, fsbench, say
from engines import bench
from places import Kegfs

FILES = 400

# Operation of fsbench: the most it may take of requests, of bytes in the log, of writes to it. One
# request or write more is over; the half is for what the background adds.
LIMITS = {
    "create": (5.5, 8192 + 600, 2.5),
    "append": (1.5, 2048, 1.5),
    "truncate": (3.5, 8192 + 600, 2.5),
    "chmod": (2.5, 200, 1.5),
    "replace": (8.5, 8192 + 1200, 3.5),
    "stat": (1.1, 0, 0),
    "read": (0.1, 0, 0),
    "unlink": (2.5, 600, 1.5),
    "tar": (9.5, 8192 + 1200, 5.5),
    "mkdir": (3.5, 400, 1.5),
    "rmdir": (2.5, 400, 1.5),
    "grow": (1.5, 2048, 1.5),
    "bigwrite": (1.5, (1 << 20) + 8192, 1.5),
    "overwrite": (1.5, (64 << 10) + 1024, 1.5),
}
ORDER = [("create", "a", FILES), ("append", "a", FILES), ("truncate", "a", FILES),
         ("chmod", "a", FILES), ("replace", "a", FILES), ("stat", "a", FILES), ("read", "a", FILES),
         ("unlink", "a", FILES), ("tar", "b", FILES), ("mkdir", "c", FILES), ("rmdir", "c", FILES),
         ("create", "d", 1), ("grow", "d", 1000), ("bigwrite", "e", 32), ("overwrite", "e", FILES)]
# Of libkeg by key, values of 100 bytes; a put's share of the hint at the close is in it.
INSTRUCTIONS = {"fillrandom": 10500, "readrandom": 2700}
FORGETS = {"FORGET", "BATCH_FORGET", "INTERRUPT"}  # at no fixed time


def stats_of(place):
    with open(f"{place.path}/.kegfs/stats.json") as file:
        stats = json.load(file)
    requests = sum(n for name, n in stats["requests"].items() if name not in FORGETS)
    return {"requests": requests, "bytes": stats["append_bytes"], "writes": stats["appends"]}


def settled(place):
    """The statistics once they stay as they are but for what it takes to read them."""
    before, last = stats_of(place), None
    for _ in range(500):
        time.sleep(0.02)
        after = stats_of(place)
        step = {name: after[name] - before[name] for name in after}
        if step == last:
            break
        before, last = after, step
    return after, step


def count(place, operation, directory, files):
    path = f"{place.path}/{directory}"
    os.makedirs(path, exist_ok=True)
    size = 32 if operation == "overwrite" else 8192
    before, step = settled(place)
    done, _ = fsbench(operation, path, files, 1, size)
    after, _ = settled(place)
    # Two readings and the last one's settling lie in between; only their requests count.
    return {name: (after[name] - before[name] - 3 * step[name]) / done for name in after}


def counts(figures, place):
    """The least of three rounds: whoever makes the kernel drop its caches costs requests, and
    nothing saves any."""
    least = {}
    for _ in range(3):
        place.open()
        for operation, directory, files in ORDER:
            for name, value in count(place, operation, directory, files).items():
                if files > 1:
                    least[operation, name] = min(value, least.get((operation, name), value))
        place.close()
    for (operation, name), value in least.items():
        figures.add(f"{operation} {name}", place.name, value, name)
    for operation, limits in LIMITS.items():
        for name, limit in zip(("requests", "bytes", "writes"), limits):
            figures.compare(operation, f"{operation} {name}", place.name, limit=limit)


def collected(options, workloads, keys):
    """Instructions of all of a run of kegbench."""
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                           KEGBENCH, f"--db={fresh_directory(options.ram + '/keg')}",
                           f"--benchmarks={workloads}", f"--num={keys}"],
                          capture_output=True, text=True, timeout=300)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"callgrind: {done.stderr[-500:]}")
    return int(found.group(1))


def instructions(options, figures):
    few, many = 5000, 15000
    fill = [collected(options, "fillrandom", keys) for keys in (few, many)]
    both = [collected(options, "fillrandom,readrandom", keys) for keys in (few, many)]
    put = (fill[1] - fill[0]) / (many - few)
    get = (both[1] - both[0]) / (many - few) - put
    for name, value in (("fillrandom", put), ("readrandom", get)):
        figures.add(f"{name} instructions", "libkeg", value, "instructions")
        figures.compare(name, f"{name} instructions", "libkeg", limit=INSTRUCTIONS[name])


def fastest(options):
    """Of short runs of kegbench, the highest rate it tells. Once its clock began only when the
    thread that opened the gate got a CPU, and 2,000 puts were said to take a microsecond. The limit
    is some ten times what any machine does, and load only lowers the rate."""
    rates = []
    for _ in range(30):
        rates.append(bench("keg", options.ram, num=2000, value_size=100, batch_size=16,
                           benchmarks="fillrandom")["fillrandom"])
    return max(rates)


def run_mode(options, figures):
    say("quick: the clock of kegbench")
    figures.add("clock", "libkeg", fastest(options), "operations/s")
    figures.compare("short runs of kegbench, the fastest", "clock", "libkeg", limit=2e7)
    say("quick: counts")
    counts(figures, Kegfs(options.ram))
    say("quick: instructions")
    instructions(options, figures)
    failed = figures.failures()
    if failed:
        figures.note(f"**{len(failed)} over their limits** (scripts/bench.d/quick.py).")
    return 1 if failed else 0
