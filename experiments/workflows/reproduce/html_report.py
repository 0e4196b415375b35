"""HTML report of reproductions."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from ...evaluation.significance import Interval, equivalence
from ...reporting.html_page import SORTABLE, build_page, table
from ...reporting.svg import dot, rule, svg, text, ticks
from .verdict import HEADER, Reproduction, admitted

LEFT, WIDTH, LINE = 240, 460, 26  # of the names, the axis and each row, in the picture's own units
COLOURS = {"reproduced": "var(--blue)", "not reproduced": "var(--red)", "underpowered": "var(--orange)"}
STYLE = """
td.word { min-width: 7em; }
svg { width: 100%; max-width: 760px; display: block; margin: 0.7em 0; }
"""


def render_page(rows: Sequence[Reproduction]) -> str:
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
    words = tuple(
        place for place, name in enumerate(HEADER) if name not in ("seeds", "time of a run", "record version")
    )
    parts.append(f"<h2>Claims and verdicts</h2>{table(HEADER, [row.cells() for row in rows], words)}")
    return build_page(title, "\n".join(parts), STYLE, SORTABLE)


def chart(rows: Sequence[Reproduction]) -> str:
    """Each row's seeds and their mean, by how far they are from the claimed value."""
    apart = [Distances.of(row) for row in rows]
    ends = [end for each in apart for end in each.ends()]
    margin = 0.04 * (max(ends) - min(ends))
    low, high = min(ends) - margin, max(ends) + margin

    def across(distance: float) -> float:
        return LEFT + WIDTH * (min(max(distance, low), high) - low) / (high - low)

    foot = LINE * len(rows)
    bands, marks = [], []
    for number, (row, each) in enumerate(zip(rows, apart, strict=True)):
        top, middle = LINE * number + 4, LINE * (number + 0.5)
        begin, end = map(across, each.admitted)
        shape = f'x="{begin:.1f}" y="{top}" width="{end - begin:.1f}" height="{LINE - 8}"'
        bands.append(f'<rect {shape} fill="var(--pale)"/>')
        colour = COLOURS.get(row.verdict, "var(--grey)")
        marks.append(text(LEFT - 12, middle + 4, row.recipe, "end"))
        if math.isfinite(each.interval.low):
            begin, end = map(across, each.interval)
            marks.append(rule(begin, middle, end, middle, colour))
        marks += [dot(across(seed), middle, 2.5, colour, f"{seed:+.2f}") for seed in each.seeds]
        mean = fmean(each.seeds)
        told = f"{row.recipe}, {row.metric}: {mean:+.2f}, {row.verdict}"
        marks.append(dot(across(mean), middle, 5, colour, told))
    axis = []
    for tick in ticks(low, high).tolist():
        stroke = "currentColor" if tick == 0 else "var(--pale)"
        axis += [rule(across(tick), 0, across(tick), foot, stroke)]
        axis += [text(across(tick), foot + 16, f"{tick:+g}" if tick else "claimed", "middle")]
    return svg(LEFT + WIDTH + 20, foot + 24, [*bands, *axis, *marks])


@dataclass(frozen=True)
class Distances:
    """How far all that belongs to a row is from its claimed value, in percentage points.

    Attributes:
        seeds: Of each.
        interval: The one by which the verdict goes; infinite for a single seed.
        admitted: What the claim's tolerance allows.
    """

    seeds: Sequence[float]
    interval: Interval
    admitted: Interval

    @classmethod
    def of(cls, row: Reproduction) -> Self:
        """A row that has seeds."""
        allowed = admitted(row.claimed)
        _, interval = equivalence(row.values, allowed)

        def apart(values: Iterable[float]) -> list[float]:
            return [100 * (value - row.claimed.value) for value in values]

        return cls(apart(row.values), Interval(*apart(interval)), Interval(*apart(allowed)))

    def ends(self) -> list[float]:
        """What the axis must reach; a tolerance with one end is drawn as far to the other side."""
        known = [end for end in (*self.seeds, *self.interval) if math.isfinite(end)]
        reach = min(map(abs, self.admitted))
        return [*known, -reach, reach]
