# SPDX-License-Identifier: MIT
"""Real trees under ordinary tools, and a few figures of many or of large files."""
import os
import shutil

from base import fsbench, load_program, remove, run, say, timed, tree_bytes
from places import Ext4, Kegfs, Null

SOURCES = ("/usr/share", "/usr/lib/python3", "/usr/include", "/usr/lib")
LARGEST = 256 << 10  # bytes of a file; larger ones are a matter of bytes, not of files
TOOLS = ("tar", "cp", "find", "du", "ls", "grep", "diff", "rsync", "git", "rm")

# Key, what it says, cold, command in sh with $D (where), $S (the source tree), $T (its tar).
COMMANDS = [
    ("untar", "tar x", False, 'mkdir "$D/tar" && tar -xf "$T" -C "$D/tar"'),
    ("cp", "cp -r", False, 'cp -r "$S" "$D/cp"'),
    ("find", "find", True, 'find "$D/cp" | wc -l'),
    ("ls", "ls -lR", True, 'ls -lR "$D/cp" | wc -l'),
    ("du", "du", True, 'du -s "$D/cp"'),
    ("grep", "grep -r", True, '! grep -r -F "no such text anywhere" "$D/cp"'),
    ("tar", "tar c", True, 'tar -cf - -C "$D" cp | wc -c'),
    ("diff", "diff -r", True, 'diff -r "$S" "$D/tar"'),
    ("rsync", "rsync, unchanged", True, 'rsync -a "$S/" "$D/tar/"'),
    ("git", "git checkout", False, 'mkdir "$D/git" && rm -f "$S.index" && GIT_INDEX_FILE="$S.index" '
     'git --git-dir="$S.git" --work-tree="$D/git" checkout -q -f main -- .'),
    ("rm", "rm -rf", False, 'rm -rf "$D/cp"'),
]
FASTER = {"find": None, "ls": 1.0, "grep": 1.0, "tar": 1.0, "diff": 1.0, "du": 1.0, "rsync": 1.0,
          "rm": 1.2}
FLOOR = {"untar": 1.25, "cp": 1.25}


# ---- The tree ----

def plain_files(sources):
    for source in sources:
        for directory, names, files in os.walk(source):
            names.sort()
            for name in sorted(files):
                path = f"{directory}/{name}"
                if os.path.isfile(path) and not os.path.islink(path) and \
                        os.path.getsize(path) <= LARGEST:
                    yield path


def make_tree(options, count):
    """Copies of the first so many ordinary files of the system, a tar of them, a git of them."""
    source = f"{options.ram}/source"
    made = size = 0
    for path in plain_files(SOURCES):
        if made == count:
            break
        if "/.git" in path:
            continue
        copy = source + path
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copy(path, copy)
        made, size = made + 1, size + os.path.getsize(path)
    run("tar", "-cf", f"{source}.tar", "-C", source, ".")
    git = ["git", f"--git-dir={source}.git", f"--work-tree={source}", "-c", "user.name=bench",
           "-c", "user.email=bench@localhost", "-c", "gc.auto=0"]
    run("git", "init", "-q", "--bare", "-b", "main", f"{source}.git")
    run("git", f"--git-dir={source}.git", "config", "core.bare", "false")
    run(*git, "add", "-f", "-A", ".")
    run(*git, "commit", "-q", "-m", "tree")
    return source, made, size


def load_tools():
    """Their programs and libraries come back from disk after drop_caches: not what is measured."""
    for name in TOOLS + ("wc", "sh"):
        load_program(shutil.which(name))


def tree_round(place, options, figures, source, count):
    place.open()
    env = dict(os.environ, D=place.path, S=source, T=f"{source}.tar")
    for key, _, cold, command in COMMANDS:
        if cold:
            place.cold()
        load_tools()
        seconds = timed("sh", "-c", command, env=env)
        figures.add(key, place.name, seconds / count * 1e6, "us a file")
    if isinstance(place, Kegfs):
        place.close()
    else:
        run("sh", "-c", 'rm -rf "$0"/*', place.path)


def trees(options, figures):
    source, count, size = make_tree(options, options.size_or(10000))
    places = [Kegfs(options.ram), Ext4(options.ram, 4096), Null(options.ram, "uring")]
    for i in options.each_round():
        for place in places:
            say(f"trees: round {i + 1}, {place.name}")
            tree_round(place, options, figures, source, count)
    for place in places:
        place.close()
    for key, text, cold, _ in COMMANDS:
        text += ", cold" if cold else ""
        figures.compare(text, key, "kegfs", "ext4", most=FASTER.get(key))
        figures.compare(text, key, "kegfs", "null uring", most=FLOOR.get(key))
    figures.note(f"The tree: {count:,} files of {size / count / 1024:.1f} KiB on average, of the "
                 "system's own. diff and rsync compare with the source on tmpfs.")


# ---- Many small files, one big one ----

def order(options, figures):
    """Small files, read in the order of their creation; and what they take."""
    files = options.size_or(10000) * 10
    places = [Kegfs(options.ram), Ext4(options.ram, 4096)]
    for place in places:
        say(f"trees: {files:,} files, {place.name}")
        place.open()
        before = used(place)
        fsbench("create", f"{place.path}", files, 1, 1024)
        if isinstance(place, Kegfs):
            place.compact()
            place.umount()  # writes the last hint
            for name, suffixes in (("space_data", (".data",)), ("space", (".data", ".hint"))):
                figures.add(name, place.name,
                            tree_bytes(place.store, *suffixes) / files / 1024, "KiB a file")
            place.mount()
        else:
            place.cold()  # what was delayed is there then
            figures.add("space", place.name, (used(place) - before) / files / 1024 + 0.25,
                        "KiB a file")
    for i in options.each_round():
        for place in places:
            say(f"trees: order, round {i + 1}, {place.name}")
            place.cold()
            done, seconds = fsbench("read", place.path, files)
            figures.add("order", place.name, seconds / done * 1e6, "us a file")
    for place in places:
        place.close()
    figures.compare(f"reading {files:,} files of 1 KiB in order of creation, cold", "order",
                    "kegfs", "ext4", most=1 / 3)
    figures.compare("space of a file of 1 KiB after compaction, .data", "space_data", "kegfs",
                    limit=1.25)
    figures.compare("the same, with hints", "space", "kegfs", "ext4", limit=1.5)
    figures.note("ext4's space counts the inode, of 256 bytes, beside its blocks.")


def used(place):
    fs = os.statvfs(place.path)
    return (fs.f_blocks - fs.f_bfree) * fs.f_frsize


def big(options, figures):
    mib = 512
    places = [Kegfs(options.ram), Ext4(options.ram, 4096)]
    for i in options.each_round():
        for place in places:
            say(f"trees: one big file, round {i + 1}, {place.name}")
            place.open()
            for name, operation in (("big_write", "bigwrite"), ("big_read", "bigread")):
                if name == "big_read":
                    place.cold()
                done, seconds = fsbench(operation, place.path, mib)
                figures.add(name, place.name, done / seconds, "MiB/s")
    for place in places:
        place.close()
    for name, text in (("big_write", "one big file written"), ("big_read", "and read, cold")):
        figures.compare(f"{text}, 1 MiB at a time", name, "kegfs", "ext4", least=0.8)


def run_mode(options, figures):
    for name, part in (("tree", trees), ("order", order), ("big", big)):
        if options.wanted(name):
            part(options, figures)
    remove(f"{options.ram}/source")
