# SPDX-License-Identifier: MIT
"""scripts/bench hands over to this, in namespaces of its own where it may have them."""
import argparse
import importlib
import os
import signal
import subprocess
import sys

sys.dont_write_bytecode = True

import base  # noqa: E402
import report  # noqa: E402

MODES = ["files", "engines", "strata", "scale", "trees", "all"]


def parse():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="See tests/bench/README.md.")
    parser.add_argument("mode", nargs="?", choices=MODES)
    parser.add_argument("--quick", action="store_true", help="counts, and the clock of kegbench, against limits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=None,
                        help="no round that would end later (all: 3000, but at least 3 rounds)")
    parser.add_argument("--size", type=int, default=0, help="files or keys; each mode has its own")
    parser.add_argument("--only", default="", metavar="NAME,...", help="figures that begin so")
    parser.add_argument("--pin", action="store_true", help="files: a lone client keeps to one CPU")
    parser.add_argument("--out", default=f"{base.TOP}/build-test/bench", metavar="DIR")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.mode = "quick"
    if not arguments.mode:
        parser.error("which mode? " + ", ".join(MODES) + " or --quick")
    if arguments.seconds is None:
        arguments.seconds = 3000 if arguments.mode == "all" else 0
    if arguments.mode == "all" and arguments.only:
        parser.error("all goes without --only")
    if arguments.rounds < 1 or min(arguments.size, arguments.seconds) < 0:
        parser.error("--rounds is at least 1, --size and --seconds at least 0")
    return arguments


def scratch():
    """The script's directory on the disk that TMPDIR is on, and a tmpfs of our own if we may."""
    disk = os.environ["BENCH_SCRATCH"]
    ram = f"{disk}/ram"
    os.mkdir(ram)
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90%,mode=700", "kegfs-bench", ram],
                       check=True)
    return disk, ram


def unmount_left(below):
    """After a failure: mounts of a user, which no namespace ends."""
    with open("/proc/self/mounts") as file:
        left = [line.split()[1] for line in file]
    for path in reversed([path for path in left if path.startswith(f"{below}/")]):
        subprocess.run(["fusermount3", "-uz", path], check=False)


def main():
    arguments = parse()
    arguments.disk, arguments.ram = scratch()
    options = base.Options(arguments)
    base.pin_one = arguments.pin
    figures = report.Figures(options.mode, options.out, options.only)
    os.environ["LC_ALL"] = "C"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        status = importlib.import_module(options.mode).run_mode(options, figures) or 0
        if options.mode != "all":  # which has written its own
            figures.write()
            print(figures.table(), flush=True)
    finally:
        if os.geteuid() != 0:
            unmount_left(options.disk)
    return status


sys.exit(main())
