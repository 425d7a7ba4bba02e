# SPDX-License-Identifier: MIT
"""What growth costs: libkeg from 10^5 to 10^7 keys, and a mount of a million files."""
import os
import shutil
import subprocess
import time

from base import (KEGFS, drop_caches, fresh_directory, fsbench, load_program, remove, run, say,
                  tool)
from places import Kegfs

MOST = 10 ** 7  # keys; a tenth of it is the number of files
NAME_BYTES = 20


def figures_of(text):
    for line in text.splitlines():
        name, value, unit = line.split()
        yield name, float(value), unit


def put_more_and_die(directory, keys):
    """Puts that many more and is killed; the store stays as that left it."""
    done = subprocess.run([tool("scale"), "kill", directory, str(keys)], capture_output=True)
    if done.returncode != -9:
        raise RuntimeError(f"scale kill: exit status {done.returncode}, {done.stderr.decode()}")


def keys_round(options, figures, keys):
    place = f"{keys:,} keys"
    directory = fresh_directory(f"{options.ram}/scale")
    for name, value, unit in figures_of(run(tool("scale"), "fill", directory, keys)):
        if name != "open":
            figures.add(name, place, value, unit)
    for name, prepare in (("open", None), ("open_killed", put_more_and_die)):
        if prepare:
            prepare(directory, keys // 10)
        drop_caches()
        load_program(tool("scale"))
        opened = dict((n, v) for n, v, _ in figures_of(run(tool("scale"), "open", directory)))
        figures.add(name, place, opened["open"], "ms")
    remove(directory)


def scale_of_keys(options, figures):
    sizes = [n for n in (10 ** 5, 10 ** 6, 10 ** 7) if n <= options.size_or(MOST)]
    sizes = sizes or [options.size]
    for i in options.each_round():
        for keys in sizes:
            # The largest takes a minute: one round in five.
            if keys < 10 ** 7 or i % 5 == 0:
                say(f"scale: round {i + 1}, {keys:,} keys")
                keys_round(options, figures, keys)
    least, most = f"{sizes[0]:,} keys", f"{sizes[-1]:,} keys"
    for name in ("put", "get", "lookup"):
        figures.compare(name, name, most, least, most=1.5 if name != "lookup" else None)
    for name in ("put_longest", "get_longest"):
        for keys in sizes:
            figures.compare(name.replace("_", ", "), name, f"{keys:,} keys", limit=50)
    for name, text in (("index", "index, a key"), ("open", "open after a clean close"),
                       ("open_killed", "open after a kill, a tenth put since"),
                       ("close", "close")):
        for keys in sizes:
            figures.compare(text, name, f"{keys:,} keys")


# ---- A mount ----

def timed_mount(place):
    drop_caches()
    load_program(KEGFS)
    begin = time.monotonic()
    place.mount()
    os.stat(f"{place.path}/files")
    return time.monotonic() - begin


def anonymous_bytes(place):
    with open(f"/proc/{place.pid()}/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon")


def mount_of_files(options, figures):
    files = options.size_or(MOST) // 10
    place = Kegfs(options.ram)
    say(f"scale: making {files:,} files")
    place.open()
    os.mkdir(f"{place.path}/files")
    os.environ["FSBENCH_NAME"] = str(NAME_BYTES)
    fsbench("create", f"{place.path}/files", files // 2, 2, 1024)
    place.kill()
    killed = f"{options.ram}/killed"
    shutil.copytree(place.store, killed)
    for i in options.each_round():
        say(f"scale: mounts, round {i + 1}")
        remove(place.store)
        shutil.copytree(killed, place.store)
        figures.add("mount_killed", "kegfs", timed_mount(place), "s")
        place.umount()
        figures.add("mount_clean", "kegfs", timed_mount(place), "s")
        figures.add("memory", "kegfs", anonymous_bytes(place) / files, "bytes")
        if i == 0:  # the kernel holds every inode then
            fsbench("list", f"{place.path}/files", files // 2, 2)
            figures.add("memory_walked", "kegfs", anonymous_bytes(place) / files, "bytes")
        place.umount()
    del os.environ["FSBENCH_NAME"]
    remove(killed)
    place.close()
    share = files / 10 ** 6
    figures.compare(f"mount of {files:,} files, after a clean unmount", "mount_clean", "kegfs",
                    limit=1 * share)
    figures.compare(f"mount of {files:,} files, after kill -9", "mount_killed", "kegfs",
                    limit=2 * share)
    figures.compare("daemon's memory, a file", "memory", "kegfs", limit=300)
    figures.compare("daemon's memory, a file, after ls -lR", "memory_walked", "kegfs", limit=300)


def run_mode(options, figures):
    if options.wanted("keys"):
        scale_of_keys(options, figures)
    if options.wanted("mount"):
        mount_of_files(options, figures)
    figures.note(f"Keys of 16 bytes with values of 100; files of 1 KiB with names of {NAME_BYTES} "
                 "bytes, made by two clients, who were through when the daemon was killed. "
                 "10^7 keys: one round in five.")
