# SPDX-License-Identifier: MIT
"""The workload that StrataKV publishes for itself, on libkeg and LMDB; see strata.c."""
from base import KEGBENCH, fresh_directory, remove, run, say, tool

PHASES = {"load": "put 8 KiB, new keys", "overwrite": "overwrite a quarter of the keys, often",
          "delete": "delete, among half of the keys", "read": "read, before compaction",
          "missing": "read keys that are not there, before compaction",
          "mixed": "half reads, half updates, zipfian",
          "compact": "compaction", "read_after": "read, after compaction",
          "missing_after": "read keys that are not there, after compaction",
          "scan": "scan in order, a key", "close": "close", "reopen": "open again"}


def run_mode(options, figures):
    keys = options.size_or(20000)
    engines = ["keg"] + (["lmdb"] if "lmdb" in run(KEGBENCH, "--help") and has_lmdb(options) else [])
    for i in options.each_round():
        for engine in engines:
            say(f"strata: round {i + 1}, {engine}")
            directory = fresh_directory(f"{options.ram}/{engine}")
            for line in run(tool("strata"), engine, directory, keys).splitlines():
                name, value, unit = line.split()
                figures.add(name, engine, float(value), unit)
            remove(directory)
    for name, text in PHASES.items():
        figures.compare(text, name, "keg", "lmdb")
    for name, text in (("space", "space before compaction"), ("space_after", "and after it")):
        figures.compare(f"{text}, for each byte of values", name, "keg", "lmdb")
    figures.note(f"{keys:,} keys. Several projects are called StrataKV; this is the workload that "
                 "Adityarya11/StrataKV describes in its docs/BENCHMARKS.md (new keys; four "
                 "overwrites a key, all in the first quarter; 1.6 deletes a key, in the first half; "
                 "reads before and after compaction; reopening), and a zipfian mix and a scan "
                 "beside it.")


def has_lmdb(options):
    try:
        run(KEGBENCH, "--engine=lmdb", f"--db={fresh_directory(options.ram + '/try')}",
            "--benchmarks=fillseq", "--num=1")
        return True
    except RuntimeError:
        return False
