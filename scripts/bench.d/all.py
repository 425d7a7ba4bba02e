# SPDX-License-Identifier: MIT
"""All modes in one run, and from their figures one table of what is aimed at and what is reached
(targets.md), written anew after each part."""
import copy
import os
import platform
import subprocess
import time
import traceback

import base
import engines
import files
import quick
import report
import scale
import strata
import targets
import trees
from base import say
from places import Kegfs

PINNED = "create,append,truncate,replace,stat_cold,read_cold,unlink"

# Part, as its CSV is called; its share of the time; what runs it.
PARTS = [
    ("log", 1, lambda o, f: quick.counts(f, Kegfs(o.ram))),
    ("files", 9, files.operations),
    ("durable", 2, files.durable),
    ("files-pin", 3, files.operations),
    ("trees", 8, trees.trees),
    ("order", 4, trees.order),
    ("big", 3, trees.big),
    ("engines", 12, engines.run_mode),
    ("strata", 4, strata.run_mode),
    ("scale-keys", 5, scale.scale_of_keys),
    ("scale-mount", 5, scale.mount_of_files),
]


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip().split("\n")[0]


def about(options):
    """What the figures are of."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) >> 20
    git = ["git", "-c", f"safe.directory={base.TOP}", "-C", base.TOP]
    changed = first_line(*git, "status", "--porcelain", "--untracked-files=no")
    return [("commit", first_line(*git, "rev-parse", "HEAD") + (" and changes" if changed else "")),
            ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
            ("machine", f"{len(models)} x {models[0] if models else platform.machine()}, "
                        f"{memory} GiB"),
            ("kernel", platform.release()),
            ("libfuse", first_line("pkg-config", "--modversion", "fuse3")),
            ("store on disk", base.run("findmnt", "-n", "-o", "FSTYPE", "-T", options.disk).strip())]


def run_part(options, figures, run):
    """Whether it got through; what it had until then is in its CSV and its figures."""
    base.pin_one = figures.mode == "files-pin"
    try:
        run(options, figures)
        figures.write()
        return True
    except Exception:
        say(f"{figures.mode} failed:\n{traceback.format_exc()}")
        return False
    finally:
        base.pin_one = False
        base.clear(options)


def run_mode(options, _):
    begin = time.monotonic()
    done, failed = {}, []
    heading = about(options)
    for i, (name, weight, run) in enumerate(PARTS):
        part = copy.copy(options)
        part.least = min(3, options.rounds)
        part.only = PINNED if name == "files-pin" else ""
        if options.end:
            now = time.monotonic()
            part.end = now + (options.end - now) * weight / sum(p[1] for p in PARTS[i:])
        part_begin = time.monotonic()
        done[name] = report.Figures(name, options.out)
        if not run_part(part, done[name], run):
            failed.append(name)
        say(f"{name}: {time.monotonic() - part_begin:.0f} s, {time.monotonic() - begin:.0f} in all")
        text = targets.write(options, heading, done, failed, time.monotonic() - begin)
    print(text, flush=True)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0
