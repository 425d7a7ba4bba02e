# SPDX-License-Identifier: MIT
"""The targets, row by row, and what all parts of a run say to each."""
import os

from engines import VALUES
from files import CPU, FASTER, PAIRS, STEPS
from report import Figures, number, plot
from trees import COMMANDS
from trees import FASTER as TREES_FASTER
from trees import FLOOR as TREES_FLOOR

URING, SPIN = "kegfs uring", "kegfs spin"


def merged(done):
    """The figures of all parts as one, PART/WHAT."""
    all_ = Figures("targets", "")
    for part, figures in done.items():
        for (what, place), values in figures.values.items():
            all_.values[f"{part}/{what}", place] = values
            all_.units[f"{part}/{what}"] = figures.units[what]
    return all_


class Table:
    def __init__(self, figures):
        self.figures = figures
        self.lines = []
        self.met = self.missed = self.absent = 0

    def row(self, text, what, ours, peer=None, **bounds):
        values = self.figures.values.get((what, ours))
        peer_what = bounds.get("peer_what", what)
        if not values or (peer and not self.figures.values.get((peer_what, peer))):
            self.absent += 1
            self.lines.append([text, "", "", "", "", "not measured", ""])
            return
        row = (text, what, ours, peer, bounds.get("most"), bounds.get("least"),
               bounds.get("limit"), None, peer_what)
        label, mine, other, ratio, target, met = self.figures.cells(row)
        self.met += met == "yes"
        self.missed += met == "**no**"
        self.lines.append([label, mine, other, ratio, target, met, str(len(values))])

    def text(self):
        return markdown(["what", "kegfs", "peer", "ratio", "target", "met", "rounds"], self.lines)


def markdown(head, lines):
    rows = [head, ["---"] * len(head)] + lines
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"


# ---- Each operation ----

def operations(figures, part):
    """The first table, and for each pair of places how many rows are within 1.25 of the floor."""
    lines, within = [], {pair: [0, 0] for pair in PAIRS}
    for key, text, *_ in STEPS:
        what = f"{part}/{key}"
        ext4 = figures.get(what, "ext4")
        cells = [text, number(ext4)]
        for pair in PAIRS:
            ours, floor = (figures.get(what, place) for place in pair)
            cells += [number(floor), number(ours)]
            if ours and floor:
                good = ours / floor <= 1.25
                within[pair][0] += good
                within[pair][1] += 1
                cells.append(f"{ours / floor:.2f}" if good else f"**{ours / floor:.2f}**")
            else:
                cells.append("")
        if any(cells[1:]):
            lines.append(cells)
    head = ["us an operation", "ext4"]
    for pair in PAIRS:
        head += [f"floor: {pair[1]}", pair[0], "ratio"]
    return markdown(head, lines), within


def rounds_of(figures, part):
    counts = {len(v) for (what, _), v in figures.values.items() if what.startswith(f"{part}/")}
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts, default=0))


# ---- The rest, in the order in which the targets are written down ----

def daemon(table):
    for ours, _ in PAIRS[:2]:
        for key, limit in CPU.items():
            # With the client on its CPU: else waking and polling are counted, and not kegfs.
            table.row(f"daemon's CPU less the null daemon's, a client on one CPU: {key}",
                      f"files-pin/own_cpu_{key}", ours, limit=limit)
    for key, text, *_ in STEPS:
        if key in FASTER:
            table.row(f"{text}, beside ext4", f"files/{key}", URING, "ext4", most=1.0)
    for clients, least in ((1, 1.1), (4, 2), (16, 4)):
        table.row(f"create, write, fsync on disk, clients: {clients}", f"durable/durable_{clients}",
                  "kegfs", "ext4", least=least)


def real_trees(table):
    table.row("small files read in the order of creation, cold", "order/order", "kegfs", "ext4",
              most=1 / 3)
    for key, text, cold, _ in COMMANDS:
        if TREES_FASTER.get(key):
            table.row(text + (", cold" if cold else ""), f"trees/{key}", "kegfs", "ext4",
                      most=TREES_FASTER[key])
    for key, most in TREES_FLOOR.items():
        text = next(c[1] for c in COMMANDS if c[0] == key)
        table.row(f"{text}, beside its floor", f"trees/{key}", "kegfs", "null uring", most=most)
    table.row("one big file written, 1 MiB at a time", "big/big_write", "kegfs", "ext4", least=0.8)
    table.row("one big file read, cold", "big/big_read", "kegfs", "ext4", least=0.8)


def bytes_kept(table):
    table.row("space of a file of 1 KiB, .data", "order/space_data", "kegfs", limit=1.25)
    table.row("space of a file of 1 KiB, with hints", "order/space", "kegfs", "ext4", limit=1.5)
    for operation, text, limit in (
            ("create", "appended: create and write 8 KiB", 8192 + 600),
            ("chmod", "appended: chmod", 200),
            ("grow", "appended: append 100 B, of a thousand to one file", 2048),
            ("overwrite", "appended: random 4 KiB overwrite", (64 << 10) + 1024)):
        table.row(text, f"log/{operation} bytes", "kegfs", limit=limit)


def growth(table, files):
    share = files / 10 ** 6
    table.row(f"mount of {files:,} files after a clean unmount", "scale-mount/mount_clean", "kegfs",
              limit=1 * share)
    table.row(f"mount of {files:,} files after kill -9", "scale-mount/mount_killed", "kegfs",
              limit=2 * share)
    table.row("daemon's memory, a file", "scale-mount/memory", "kegfs", limit=300)
    table.row("daemon's memory, a file, after ls -lR", "scale-mount/memory_walked", "kegfs",
              limit=300)
    places = sorted((place for what, place in table.figures.values if what == "scale-keys/put"),
                    key=lambda place: int(place.split()[0].replace(",", "")))
    least, most = (places[0], places[-1]) if places else ("", "")
    for name in ("put", "get"):
        table.row(name, f"scale-keys/{name}", most, least, most=1.5)
        for place in places or [""]:
            table.row(f"{name}, the longest", f"scale-keys/{name}_longest", place, limit=50)


def engine(table):
    for size, (_, bounds) in VALUES.items():
        for name, least in bounds.items():
            table.row(f"{name}, values of {size} B", f"engines/{name} {size}", "keg", "rocksdb",
                      least=least)
    table.row("fillsync, 1 thread", "engines/fillsync 1", "keg", "rocksdb", least=1.0)
    table.row("fillsync, 16 threads beside 1", "engines/fillsync 16", "keg", "keg", least=6,
              peer_what="engines/fillsync 1")


def charts(figures):
    places = ["ext4", "null uring", URING, "null uring noxattr", f"{URING} noxattr"]
    yield "us an operation", places, [
        (text, [figures.get(f"files/{key}", place) for place in places]) for key, text, *_ in STEPS]
    places = ["ext4", "null uring", "kegfs"]
    yield "us a file", places, [
        (text + (", cold" if cold else ""), [figures.get(f"trees/{key}", p) for p in places])
        for key, text, cold, _ in COMMANDS]
    places = ["rocksdb", "lmdb", "keg"]
    yield "operations a second", places, [
        (f"{name}, {size} B", [figures.get(f"engines/{name} {size}", p) for p in places])
        for size, (_, bounds) in VALUES.items() for name in bounds] + [
        (f"fillsync, {n} threads", [figures.get(f"engines/fillsync {n}", p) for p in places])
        for n in (1, 16)]


def write(options, heading, done, failed, seconds):
    """targets.md and targets.svg of the parts that are done; returns the text."""
    figures = merged(done)
    table = Table(figures)
    first, within = operations(figures, "files")
    pinned, _ = operations(figures, "files-pin")
    daemon(table)
    real_trees(table)
    bytes_kept(table)
    growth(table, options.size_or(10 ** 7) // 10)
    engine(table)
    lines = [f"- {name}: {value}" for name, value in heading]
    lines.append(f"- rounds: {options.rounds} wanted, at least {min(3, options.rounds)}; what each "
                 f"row had is in it; {seconds / 60:.0f} minutes in all")
    if options.size:
        lines.append(f"- **a trial with --size {options.size}: not to be compared with anything**")
    if failed:
        lines.append(f"- **failed, and so not whole: {', '.join(failed)}**")
    text = "# Targets\n\n" + "\n".join(lines) + "\n\n"
    text += f"{table.met} met, {table.missed} missed, {table.absent} not measured.\n\n"
    text += table.text()
    text += "\n## Each operation beside its floor\n\nAt most 1.25 x the floor that makes the same " \
            "requests:\n"
    for (ours, floor), (good, of) in within.items():
        text += f"- {ours} beside {floor}: {good} of {of} rows\n"
    text += f"\n{first}\nRounds: {rounds_of(figures, 'files')}.\n"
    text += "\n## The same with a lone client kept to one CPU\n\n" + pinned
    text += f"\nRounds: {rounds_of(figures, 'files-pin')}.\n"
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/targets.md", "w") as file:
        file.write(text)
    plot(f"{options.out}/targets", charts(figures))
    return text
