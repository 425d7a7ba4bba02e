# SPDX-License-Identifier: MIT
"""libkeg beside RocksDB and LMDB, under the workloads of db_bench and by its names."""
import re

from base import KEGBENCH, fresh_directory, remove, run, say

# Value bytes: keys, and how many times RocksDB's rate is wanted.
VALUES = {
    100: (1000000, {"fillrandom": 3, "overwrite": 3, "readrandom": 4, "batches": 6}),
    8192: (100000, {"fillrandom": 2, "overwrite": 2, "readrandom": 4, "batches": 6}),
}
SYNCS = 2000  # puts of fillsync, all threads together
LINE = re.compile(r"^(\w+)\s*:\s+([\d.]+) micros/op (\d+) ops/sec", re.M)


def bench(engine, where, **options):
    """Rates by the name of the workload."""
    options.setdefault("key_size", 16)
    if engine == "rocksdb":
        command = ["db_bench", "--compression_type=none"]
    else:
        command = [KEGBENCH, f"--engine={engine}"]
        if "writes" in options:  # kegbench takes a thousandth by itself
            options["num"] = options.pop("writes") * 1000
    directory = fresh_directory(f"{where}/{engine}")
    text = run(*command, f"--db={directory}", *(f"--{k}={v}" for k, v in options.items()))
    remove(directory)
    return {name: float(rate) for name, _, rate in LINE.findall(text)}


def values_round(options, figures, engine, size):
    keys = options.size_or(VALUES[size][0]) // (1 if not options.size or size == 100 else 10)
    rates = bench(engine, options.ram, num=keys, value_size=size,
                  benchmarks="fillrandom,overwrite,readrandom")
    rates["batches"] = bench(engine, options.ram, num=keys, value_size=size, batch_size=16,
                             benchmarks="fillrandom")["fillrandom"]
    for name, rate in rates.items():
        figures.add(f"{name} {size}", engine, rate, "operations/s")


def sync_round(options, figures, engine, threads):
    writes = max(options.size // 500 if options.size else SYNCS, 40)
    writes //= 1 if threads == 1 else 4
    rate = bench(engine, options.disk, num=writes * 1000, writes=writes, value_size=100,
                 threads=threads, benchmarks="fillsync")["fillsync"]
    figures.add(f"fillsync {threads}", engine, rate, "operations/s")


def run_mode(options, figures):
    for i in options.each_round():
        for engine in ("keg", "rocksdb", "lmdb"):
            say(f"engines: round {i + 1}, {engine}")
            for size in VALUES:
                if options.wanted(str(size)):
                    values_round(options, figures, engine, size)
            for threads in (1, 16):
                if options.wanted("fillsync"):
                    sync_round(options, figures, engine, threads)
    for peer in ("rocksdb", "lmdb"):
        for size, (_, targets) in VALUES.items():
            for name, least in targets.items():
                figures.compare(f"{name}, values of {size} bytes", f"{name} {size}", "keg", peer,
                                least=least if peer == "rocksdb" else None)
    figures.compare("fillsync, 1 thread", "fillsync 1", "keg", "rocksdb", least=1.0)
    figures.compare("fillsync, 16 threads, beside 1", "fillsync 16", "keg", "keg", least=6,
                    peer_what="fillsync 1")
    for peer in ("rocksdb", "lmdb"):
        figures.compare("fillsync, 16 threads", "fillsync 16", "keg", peer)
    figures.note("fillsync is on disk, the rest on tmpfs. No compression; keys of 16 bytes.")
