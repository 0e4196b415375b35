"""The page of reproductions: one HTML file with what was claimed, what came, and how far they are apart."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from experiments.page import SORTABLE, build_page, table
from experiments.reproduce.verdict import HEADER, Row
from experiments.statistics import t_interval
from experiments.svg import rule, svg, text, ticks, tooltip

LEFT, WIDTH, LINE = 240, 460, 26  # of the names, the axis and each row, in the picture's own units
COLOURS = {"reproduced": "var(--blue)", "not reproduced": "var(--red)", "underpowered": "var(--orange)"}
STYLE = """
td.word { min-width: 7em; }
svg { width: 100%; max-width: 760px; display: block; margin: 0.7em 0; }
"""


def render_page(rows: Sequence[Row]) -> str:
    """The rows as a chart and as a table."""
    title = "Reproductions"
    verdicts = Counter(row.verdict.partition(":")[0] for row in rows)
    headline = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    parts = [f"<h1>{title}</h1><p>{html.escape(headline)}</p>"]
    if obtained := [row for row in rows if row.values]:
        parts.append(
            "<h2>Obtained less claimed</h2><p>In percentage points: each seed, their mean, and its 90 % "
            "interval, by which the verdict goes; the grey band is what the claim's tolerance admits.</p>"
            f"{chart(obtained)}"
        )
    words = tuple(place for place, name in enumerate(HEADER) if name not in ("seeds", "time of a run"))
    parts.append(f"<h2>Claims and verdicts</h2>{table(HEADER, [row.cells() for row in rows], words)}")
    return build_page(title, "\n".join(parts), STYLE, SORTABLE)


def chart(rows: Sequence[Row]) -> str:
    """Each row's seeds and their mean, by how far they are from the claimed value."""
    intervals = [t_interval(row.values, 0.9) if len(row.values) > 1 else None for row in rows]
    distances = [[100 * (value - row.claimed.value) for value in row.values] for row in rows]
    ends = [distance for each in distances for distance in each]
    ends += [side * 100 * row.claimed.tolerance for row in rows for side in (-1, 1)]
    for row, interval in zip(rows, intervals, strict=True):
        ends += [100 * (end - row.claimed.value) for end in interval or ()]
    low, high = min(ends), max(ends)
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin

    def across(distance: float) -> float:
        return LEFT + WIDTH * (min(max(distance, low), high) - low) / (high - low)

    foot = LINE * len(rows)
    bands, marks = [], []
    for number, (row, distance, interval) in enumerate(zip(rows, distances, intervals, strict=True)):
        top, middle = LINE * number + 4, LINE * (number + 0.5)
        tolerance = 100 * row.claimed.tolerance
        begin, end = across(-tolerance), across(math.inf if row.claimed.at_least else tolerance)
        shape = f'x="{begin:.1f}" y="{top}" width="{end - begin:.1f}" height="{LINE - 8}"'
        bands.append(f'<rect {shape} fill="var(--pale)"/>')
        colour = COLOURS.get(row.verdict, "var(--grey)")
        marks.append(text(LEFT - 12, middle + 4, row.recipe, "end"))
        if interval is not None:
            sides = [across(100 * (end - row.claimed.value)) for end in interval]
            marks.append(rule(sides[0], middle, sides[1], middle, colour))
        marks += [_dot(across(each), middle, 2.5, colour, f"{each:+.2f}") for each in distance]
        told = f"{row.recipe}, {row.metric}: {fmean(distance):+.2f}, {row.verdict}"
        marks.append(_dot(across(fmean(distance)), middle, 5, colour, told))
    axis = []
    for tick in ticks(low, high).tolist():
        stroke = "currentColor" if tick == 0 else "var(--pale)"
        axis += [rule(across(tick), 0, across(tick), foot, stroke)]
        axis += [text(across(tick), foot + 16, f"{tick:+g}" if tick else "claimed", "middle")]
    return svg(LEFT + WIDTH + 20, foot + 24, [*bands, *axis, *marks])


def _dot(x: float, y: float, radius: float, colour: str, told: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}">{tooltip(told)}</circle>'
