#!/usr/bin/env python3
"""Draws what was measured as bars: results.svg from results.tsv (what, number, unit), one_core.svg from
one_core.tsv, and peers.svg from peers/results.tsv.

The ink is grey on no ground, so that it reads in light and in dark. The axis is linear: a bar
twice as long is twice as much.
"""

import csv
import html
import pathlib

HERE = pathlib.Path(__file__).parent
ROW, BAR, RIGHT = 30, 330, 180


def draw(name, title, rows):
    """Rows are what, number and unit."""
    most = max(number for _, number, _ in rows)
    label = 20 + 8 * max(len(what) for what, _, _ in rows)
    width, height = label + BAR + RIGHT, ROW * len(rows) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="14" fill="#808080">',
        f"<title>{title}</title>",
    ]
    for index, (what, number, unit) in enumerate(rows):
        top = 5 + ROW * index
        colour = "#7856ff" if what.startswith("ours") else "#808080"
        length = BAR * number / most
        lines += [
            f'<text x="{label - 10}" y="{top + 19}" text-anchor="end">{html.escape(what)}</text>',
            f'<rect x="{label}" y="{top + 4}" width="{length:.1f}" height="22" rx="3" fill="{colour}"/>',
            f'<text x="{label + length + 8:.1f}" y="{top + 19}">{number:,.0f} {html.escape(unit)}</text>',
        ]
    lines.append("</svg>")
    (HERE / name).write_text("\n".join(lines) + "\n")


for name, title in [
    ("results", "Instructions an update"),
    ("one_core", "CPU time an update, client and server on one core"),
]:
    with open(HERE / f"{name}.tsv", newline="") as file:
        rows = [(what, float(number), unit) for what, number, unit in csv.reader(file, delimiter="\t")]
    draw(f"{name}.svg", title, rows)

with open(HERE / "peers/results.tsv", newline="") as file:
    next(file)  # the date
    rows = [(row["name"], float(row["updates/s"]), "updates/s") for row in csv.DictReader(file, delimiter="\t")]
draw("peers.svg", "Updates a second to a server on the same machine", rows)
