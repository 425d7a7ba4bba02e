# SPDX-License-Identifier: MIT
"""scripts/bench hands over to this, in namespaces of its own where it may have them."""
import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile

import base
import report

MODES = ["files", "engines", "strata"]


def parse():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="See tests/bench/README.md.")
    parser.add_argument("mode", nargs="?", choices=MODES)
    parser.add_argument("--quick", action="store_true", help="counts alone, against limits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=0, help="files or keys; each mode has its own")
    parser.add_argument("--only", default="", metavar="NAME,...", help="figures that begin so")
    parser.add_argument("--out", default=f"{base.TOP}/build-test/bench", metavar="DIR")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.mode = "quick"
    if not arguments.mode:
        parser.error("which mode? " + ", ".join(MODES) + " or --quick")
    if arguments.rounds < 1 or arguments.size < 0:
        parser.error("--rounds is at least 1, --size at least 0")
    return arguments


def scratch():
    """A tmpfs of our own, and a directory on the disk that TMPDIR is on."""
    disk = tempfile.mkdtemp(prefix="kegfs-bench.")
    ram = f"{disk}/ram"
    if os.geteuid() == 0:
        os.mkdir(ram)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90%,mode=700", "kegfs-bench", ram],
                       check=True)
    else:
        ram = tempfile.mkdtemp(prefix="kegfs-bench.", dir="/dev/shm")
    return disk, ram


def main():
    arguments = parse()
    arguments.disk, arguments.ram = scratch()
    options = base.Options(arguments)
    figures = report.Figures(options.mode, options.out)
    os.environ["LC_ALL"] = "C"
    status = 0
    try:
        status = importlib.import_module(options.mode).run_mode(options, figures) or 0
        figures.write(options.only)
        print(figures.table(), flush=True)
    finally:
        if os.geteuid() == 0:  # lazily: after a failure something may still be mounted below
            subprocess.run(["umount", "-R", "-l", options.ram], check=False)
        shutil.rmtree(options.ram, ignore_errors=True)
        shutil.rmtree(options.disk, ignore_errors=True)
    return status


sys.exit(main())
