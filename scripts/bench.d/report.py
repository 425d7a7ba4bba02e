# SPDX-License-Identifier: MIT
"""Figures: kept by round, shown as medians beside a peer's and a target; CSV, SVG, Markdown."""
import csv
import os
import subprocess

from base import median, say


class Figures:
    def __init__(self, mode, out):
        self.mode, self.out = mode, out
        self.values = {}  # (what, place): a value for each round
        self.units = {}  # what: unit
        self.rows = []
        self.notes = []

    def add(self, what, place, value, unit="us"):
        self.values.setdefault((what, place), []).append(value)
        self.units[what] = unit

    def get(self, what, place):
        values = self.values.get((what, place))
        return median(values) if values else None

    def compare(self, text, what, ours, peer=None, most=None, least=None, limit=None, floor=None,
                peer_what=None):
        """A row of the table. most, least: what the ratio of ours to the peer's may and should be;
        limit, floor: the same of our figure alone."""
        if self.get(what, ours) is not None:
            self.rows.append((text, what, ours, peer, most, least, limit, floor, peer_what or what))

    def note(self, text):
        self.notes.append(text)

    def cells(self, row):
        text, what, ours, peer, most, least, limit, floor, peer_what = row
        mine = self.get(what, ours)
        other = self.get(peer_what, peer) if peer else None
        ratio = mine / other if other else None
        judged, target, met = None, "", ""
        for bound, sign, value, form in ((most, "at most", ratio, "{:.3g} x"),
                                         (least, "at least", ratio, "{:.3g} x"),
                                         (limit, "at most", mine, "{:,.7g}"),
                                         (floor, "at least", mine, "{:,.7g}")):
            if bound is not None and value is not None:
                target = f"{sign} {form.format(bound)}"
                judged = value <= bound if sign == "at most" else value >= bound
        if judged is not None:
            met = "yes" if judged else "**no**"
        return [f"{text}, {self.units[what]} ({ours})", number(mine),
                f"{number(other)} ({peer})" if other is not None else "",
                f"{ratio:.2f}" if ratio is not None else "", target, met]

    def table(self):
        head = ["what", "kegfs", "peer", "ratio", "target", "met"]
        lines = [" | ".join(head), "|".join(["---"] * len(head))]
        lines += [" | ".join(self.cells(row)) for row in self.rows]
        return "\n".join(f"| {line} |" for line in lines) + "\n" + "".join(
            f"\n{note}\n" for note in self.notes)

    def failures(self):
        return [row for row in self.rows if self.cells(row)[-1] == "**no**"]

    # ---- Files ----

    def write(self, only=""):
        os.makedirs(self.out, exist_ok=True)
        base = f"{self.out}/{self.mode}" + (f"-{only.replace(',', '-')}" if only else "")
        with open(f"{base}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["mode", "what", "place", "unit", "round", "value"])
            for (what, place), values in self.values.items():
                for i, value in enumerate(values, 1):
                    writer.writerow([self.mode, what, place, self.units[what], i, f"{value:.6g}"])
        with open(f"{base}.md", "w") as file:
            file.write(self.table())
        if self.mode != "quick":
            self.plot(base)

    def plot(self, base):
        """Bars of the medians, a cluster for each figure, one chart for each unit."""
        units = sorted(set(self.units.values()))
        parts = []
        for unit in units:
            whats = [w for w, u in self.units.items() if u == unit]
            places = sorted({p for w, p in self.values if w in whats})
            parts.append((unit, whats, places))
        script = [f'set terminal svg size 1400,{420 * len(parts)} dynamic font "sans,11" '
                  'background "white"', f'set output "{base}.svg"',
                  f"set multiplot layout {len(parts)},1", "set style data histogram",
                  "set style histogram clustered gap 1", "set style fill solid 0.8 noborder",
                  "set logscale y", "set xtics rotate by -25 left", "set key outside top center "
                  "horizontal", "set grid y", "set bmargin 7", "set datafile missing '?'"]
        for unit, whats, places in parts:
            script += [f'set ylabel "{unit}"', "$data << EOD"]
            for what in whats:
                cells = [self.get(what, place) for place in places]
                script.append(f'"{what}" ' + " ".join("?" if c is None or c <= 0 else f"{c:.6g}"
                                                      for c in cells))
            script += ["EOD", "plot " + ", ".join(
                f'$data using {i + 2}:xtic(1) title "{place}"' for i, place in enumerate(places))]
        script.append("unset multiplot")
        with open(f"{base}.gnuplot", "w") as file:
            file.write("\n".join(script) + "\n")
        done = subprocess.run(["gnuplot", f"{base}.gnuplot"], capture_output=True, text=True)
        if done.returncode or not parts:
            say(f"no plot: {done.stderr.strip()[-300:]}")


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
