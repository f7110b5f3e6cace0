#!/usr/bin/env python3
"""Draws benches/results.tsv (what, number, unit) as bars: benches/results.svg.

The ink is grey on no ground, so that it reads in light and in dark.
"""

import csv
import html
import pathlib

HERE = pathlib.Path(__file__).parent
ROW, LABEL, BAR, RIGHT = 30, 330, 330, 180

with open(HERE / "results.tsv", newline="") as file:
    rows = [(what, float(number), unit) for what, number, unit in csv.reader(file, delimiter="\t")]

most = max(number for _, number, _ in rows)
width, height = LABEL + BAR + RIGHT, ROW * len(rows) + 10
lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
    ' font-family="system-ui, sans-serif" font-size="14" fill="#808080">',
    "<title>Instructions an update</title>",
]
for index, (what, number, unit) in enumerate(rows):
    top = 5 + ROW * index
    colour = "#808080" if "hand-written" in what else "#7856ff"
    length = BAR * number / most
    lines += [
        f'<text x="{LABEL - 10}" y="{top + 19}" text-anchor="end">{html.escape(what)}</text>',
        f'<rect x="{LABEL}" y="{top + 4}" width="{length:.1f}" height="22" rx="3" fill="{colour}"/>',
        f'<text x="{LABEL + length + 8:.1f}" y="{top + 19}">{number:,.0f} {html.escape(unit)}</text>',
    ]
lines.append("</svg>")
(HERE / "results.svg").write_text("\n".join(lines) + "\n")
