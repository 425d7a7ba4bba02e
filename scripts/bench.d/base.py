# SPDX-License-Identifier: MIT
"""What the parts of scripts/bench share: options, commands, and statistics."""
import os
import shutil
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BENCH_BUILD", f"{TOP}/build-test/measured")
KEGFS = f"{BUILD}/fs/kegfs"
KEGBENCH = f"{BUILD}/store/kegbench"


def tool(name):
    return f"{BUILD}/tests/bench/{name}"


class Options:
    """What the command line said, and where things are."""

    def __init__(self, arguments):
        self.mode = arguments.mode
        self.rounds = arguments.rounds
        self.size = arguments.size
        self.out = os.path.abspath(arguments.out)
        self.only = arguments.only
        self.end = time.monotonic() + arguments.seconds if arguments.seconds else 0
        self.least = 1  # rounds, whatever the time
        self.ram = arguments.ram  # a directory on a tmpfs of our own
        self.disk = arguments.disk  # a directory on the real disk

    def each_round(self):
        """Their numbers; fewer, but one, if another would take longer than --seconds allows."""
        begin = time.monotonic()
        for i in range(self.rounds):
            yield i
            mean = (time.monotonic() - begin) / (i + 1)
            if i + 1 >= self.rounds:
                break
            if i + 1 >= self.least and self.end and time.monotonic() + mean > self.end:
                say(f"no time for more than {i + 1} rounds")
                break

    def size_or(self, default):
        return self.size or default

    def wanted(self, name):
        return not self.only or any(name.startswith(part) for part in self.only.split(","))


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, timeout=1200, cwd=None, env=None, stdin=None):
    """Runs it and returns what it printed; what it says on stderr is only shown if it fails."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, cwd=cwd,
                          stderr=subprocess.PIPE, timeout=timeout, text=True, stdin=stdin,
                          env=env, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n"
                           + done.stderr[-2000:])
    return done.stdout


def timed(*command, ok=(0,), cwd=None, env=None):
    """Seconds that a command takes, with its output read as a pipe's reader would."""
    begin = time.monotonic()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, cwd=cwd, env=env,
                               stderr=subprocess.DEVNULL)
    while os.read(process.stdout.fileno(), 1 << 20):
        pass
    process.stdout.close()
    if process.wait() not in ok:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit status {process.returncode}")
    return time.monotonic() - begin


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    time.sleep(0.1)


def load_program(path):
    """Into the page cache with its libraries, which drop_caches would have read from disk again."""
    libraries = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    for library in [path] + [word for word in libraries.split() if word.startswith("/")]:
        with open(library, "rb") as file:
            while file.read(1 << 20):
                pass


def remove(path):
    shutil.rmtree(path, ignore_errors=True)


def fresh_directory(path):
    remove(path)
    os.makedirs(path)
    return path


def tree_bytes(path, *suffixes):
    """Bytes of the files of a store with one of these suffixes, as ls tells them."""
    return sum(entry.stat().st_size for entry in os.scandir(path)
               if entry.name.endswith(suffixes))


def clear(options):
    """Takes away what a mode that failed has left."""
    os.environ.pop("FSBENCH_NAME", None)
    os.chdir("/")
    with open("/proc/self/mounts") as file:
        left = [line.split()[1] for line in file]
    for path in reversed([path for path in left if path.startswith(f"{options.disk}/")]):
        if path != options.ram:
            subprocess.run(["umount", "-l", path], check=False)
    for directory in (options.ram, options.disk):
        for entry in os.scandir(directory):
            if entry.path == options.ram or entry.name == "lock":
                continue
            remove(entry.path)
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)


def on_ext4(path):
    return run("findmnt", "-n", "-o", "FSTYPE", "-T", path).strip() == "ext4"


pin_one = False  # a lone client stays on the first CPU


def fsbench(operation, directory, files=1000, clients=1, size=8192, least=0):
    """Runs tests/bench/fsbench.c; returns operations done and seconds."""
    place = ["taskset", "-c", "0"] if pin_one and clients == 1 else []
    done, seconds = run(*place, tool("fsbench"), operation, directory, files, clients, size,
                        least).split()
    return int(done), float(seconds)


def median(values):
    return statistics.median(values)
