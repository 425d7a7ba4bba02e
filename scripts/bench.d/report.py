# SPDX-License-Identifier: MIT
"""Figures: kept by round, shown as medians beside a peer's and a target; CSV, SVG, Markdown."""
import csv
import os
import subprocess

from base import median, say


class Figures:
    def __init__(self, mode, out, only=""):
        self.mode, self.out = mode, out
        self.base = f"{out}/{mode}" + (f"-{only.replace(',', '-')}" if only else "")
        self.file = None  # the CSV, which has each figure as soon as there is one
        self.values = {}  # (what, place): a value for each round
        self.units = {}  # what: unit
        self.rows = []
        self.notes = []

    def add(self, what, place, value, unit="us"):
        values = self.values.setdefault((what, place), [])
        values.append(value)
        self.units[what] = unit
        if not self.file:
            os.makedirs(self.out, exist_ok=True)
            self.file = open(f"{self.base}.csv", "w", newline="")
            csv.writer(self.file).writerow(["mode", "what", "place", "unit", "round", "value"])
        csv.writer(self.file).writerow([self.mode, what, place, unit, len(values), f"{value:.6g}"])
        self.file.flush()

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

    def write(self):
        os.makedirs(self.out, exist_ok=True)
        with open(f"{self.base}.md", "w") as file:
            file.write(self.table())
        if self.mode != "quick":
            plot(self.base, self.charts())

    def charts(self):
        """One for each unit, with the medians of all figures."""
        for unit in sorted(set(self.units.values())):
            whats = [w for w, u in self.units.items() if u == unit]
            places = sorted({p for w, p in self.values if w in whats})
            yield unit, places, [(w, [self.get(w, place) for place in places]) for w in whats]


def with_figures(chart):
    """The chart without the places and the clusters that have nothing to be drawn, which gnuplot
    refuses; None: nothing has."""
    unit, places, clusters = chart
    clusters = [(name, values) for name, values in clusters if any(v and v > 0 for v in values)]
    drawn = [i for i in range(len(places)) if any((values[i] or 0) > 0 for _, values in clusters)]
    return drawn and (unit, [places[i] for i in drawn],
                      [(name, [values[i] for i in drawn]) for name, values in clusters])


def plot(base, charts, width=1400):
    """BASE.svg with charts of bars: the unit, what stands side by side, and the clusters: their
    name and a value, or None, for each."""
    charts = [chart for chart in map(with_figures, charts) if chart]
    if not charts:
        return
    script = [f'set terminal svg size {width},{420 * len(charts)} dynamic font "sans,11" '
              'background "white"', f'set output "{base}.svg"',
              f"set multiplot layout {len(charts)},1", "set style data histogram",
              "set style histogram clustered gap 1", "set style fill solid 0.8 noborder",
              "set logscale y", "set xtics rotate by -25 left", "set key outside top center "
              "horizontal", "set grid y", "set bmargin 8", "set rmargin 20", "set datafile missing '?'"]
    for unit, places, clusters in charts:
        script += [f'set ylabel "{unit}"', "$data << EOD"]
        for name, values in clusters:
            script.append(f'"{name}" ' + " ".join("?" if v is None or v <= 0 else f"{v:.6g}"
                                                  for v in values))
        script += ["EOD", "plot " + ", ".join(
            f'$data using {i + 2}:xtic(1) title "{place}"' for i, place in enumerate(places))]
    script.append("unset multiplot")
    with open(f"{base}.gnuplot", "w") as file:
        file.write("\n".join(script) + "\n")
    done = subprocess.run(["gnuplot", f"{base}.gnuplot"], capture_output=True, text=True)
    if done.returncode:
        say(f"no plot: {done.stderr.strip()[-300:]}")


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
