"""Inline SVG charts for HTML pages."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..evaluation.array_types import Floats
from .style import PALETTE

WIDTH, HEIGHT = 460, 250  # of the axes, in the picture's own units
LEFT, BOTTOM, TOP = 52, 42, 26  # of the room around them
ROW = 22  # between two lines of text
HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, FOOT = 220, 90, 18  # the numbers stand below the axis
MAX_BINS = 40


def ticks(low: float, high: float, whole: bool = False) -> Floats:
    """Round numbers between two."""
    values = np.asarray(MaxNLocator(nbins=6, integer=whole and high > 1).tick_values(low, high))
    return values[(values >= low - 1e-12) & (values <= high + 1e-12)].round(10)


def svg(width: float, height: float, parts: Sequence[str]) -> str:
    """A picture of so many units of its own, made of these parts."""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(parts)}</svg>'


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="currentColor">'
        f"{html.escape(words)}</text>"
    )


def rule(x1: float, y1: float, x2: float, y2: float, stroke: str = "var(--pale)") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="1"/>'
    )


def dot(x: float, y: float, radius: float, colour: str, told: str) -> str:
    """A dot that tells something when pointed at."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}">{tooltip(told)}</circle>'


def tooltip(words: str) -> str:
    """What is shown when the part is pointed at that this stands in."""
    return f"<title>{html.escape(words)}</title>"


@dataclass(frozen=True)
class ChartLine:
    """One line.

    Attributes:
        name: What it shows when pointed at.
        colour: As CSS has it.
        x: (P,).
        y: (P,).
        low: Of the band around it, (P,).
        high: Of the band.
    """

    name: str
    colour: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats


def colour(place: int) -> str:
    """Returns the colour of a group by its rank, the same in all charts.

    >>> colour(0), colour(10) == colour(0)
    ('#3f90da', True)
    """
    return PALETTE[place % len(PALETTE)]


def line_chart(curves: Sequence[ChartLine], x_name: str, y_name: str, x_log: bool = False) -> str:
    """Curves and their bands over common axes."""
    x_ends = min(each.x.min() for each in curves), max(each.x.max() for each in curves)
    y_ends = min(each.low.min() for each in curves), max(each.high.max() for each in curves)
    margin = 0.04 * (y_ends[1] - y_ends[0]) or 0.01
    y_ends = y_ends[0] - margin, y_ends[1] + margin
    scale = np.log10 if x_log else np.asarray
    first, last = float(scale(x_ends[0])), float(scale(x_ends[1]))
    across = (last - first) or 1.0

    def place(x: Floats, y: Floats) -> str:
        right = LEFT + WIDTH * (scale(x) - first) / across
        down = TOP + HEIGHT * (y_ends[1] - y) / (y_ends[1] - y_ends[0])
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(right, down, strict=True))

    drawn = []
    for each in curves:
        if len(each.x) > 1:
            there, back = place(each.x, each.high), place(each.x[::-1], each.low[::-1])
            drawn.append(f'<polygon points="{there} {back}" fill="{each.colour}" opacity="0.18"/>')
        look = f'fill="none" stroke="{each.colour}" stroke-width="1.8"'
        points = place(each.x, each.y)
        if len(each.x) > 1:
            drawn.append(f'<polyline points="{points}" {look}>{tooltip(each.name)}</polyline>')
        else:
            x, y = map(float, points.split(","))
            drawn.append(dot(x, y, 3, each.colour, each.name))
    decades = np.arange(math.ceil(first), math.floor(last) + 1) if x_log else ticks(*x_ends, whole=True)
    marks = []
    for tick in decades.tolist():
        at = LEFT + WIDTH * (tick - first) / across
        words = f"{10**tick:g}" if x_log else f"{tick:g}"
        marks.append(text(at, TOP + HEIGHT + 16, words, "middle"))
        marks.append(rule(at, TOP, at, TOP + HEIGHT))
    for tick in ticks(*y_ends).tolist():
        at = TOP + HEIGHT * (y_ends[1] - tick) / (y_ends[1] - y_ends[0])
        marks += [text(LEFT - 6, at + 4, f"{tick:g}", "end"), rule(LEFT, at, LEFT + WIDTH, at)]
    names = [text(LEFT + WIDTH / 2, TOP + HEIGHT + 35, x_name, "middle"), text(0, 13, y_name)]
    return svg(LEFT + WIDTH + 14, TOP + HEIGHT + BOTTOM, [*marks, *drawn, *names])


def rank_chart(names: Sequence[str], values: Sequence[float], joined: Sequence[tuple[int, int]]) -> str:
    """A critical difference diagram: groups at their means, and bars over those not told apart.

    Args:
        names: Of the groups, by rank.
        values: Their means.
        joined: First and last rank of each bar.
    """
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.01
    low, high = low - margin, high + margin
    width, left = 560, 100  # names stand beside the axis

    def across(value: float) -> float:
        return left + width * (value - low) / (high - low)

    axis = 30
    parts = [rule(left, axis, left + width, axis, "currentColor")]
    for tick in ticks(low, high).tolist():
        at = across(tick)
        parts += [rule(at, axis - 5, at, axis, "currentColor"), text(at, axis - 10, f"{tick:g}", "middle")]
    bars_end = axis + 12 + 10 * len(joined)
    for number, (first, last) in enumerate(joined):
        ends = sorted((across(values[first]), across(values[last])))
        y = axis + 12 + 10 * number
        parts.append(
            f'<line x1="{ends[0] - 4:.1f}" x2="{ends[1] + 4:.1f}" y1="{y}" y2="{y}" stroke="currentColor" '
            'stroke-width="4" stroke-linecap="round"/>'
        )
    order = sorted(range(len(names)), key=lambda number: values[number])
    half = len(order) // 2
    for place, number in enumerate(order):
        to_left = place < half
        y = bars_end + ROW * ((place if to_left else len(order) - 1 - place) + 1)
        at, end = across(values[number]), left if to_left else left + width
        parts.append(
            f'<polyline points="{at:.1f},{axis} {at:.1f},{y} {end},{y}" fill="none" '
            f'stroke="{colour(number)}" stroke-width="1.5"/>'
        )
        words = f"{names[number]}  {values[number]:.4f}"
        parts.append(text(end - 6 if to_left else end + 6, y + 4, words, "end" if to_left else "start"))
    rows = max(half, len(order) - half)
    return svg(width + 2 * left, bars_end + ROW * rows + 12, parts)


def dot_chart(rows: Sequence[str], columns: Sequence[str], values: Floats, x_name: str) -> str:
    """A line for each row, with a dot for each column: values (rows, columns)."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.01
    low, high = low - margin, high + margin
    left, width = 150, 540

    def across(value: float) -> float:
        return left + width * (value - low) / (high - low)

    head = 6
    foot = head + ROW * len(rows)
    parts = []
    for tick in ticks(low, high).tolist():
        at = across(tick)
        parts += [rule(at, head, at, foot), text(at, foot + 14, f"{tick:g}", "middle")]
    for number, name in enumerate(rows):
        y = head + ROW * (number + 0.5)
        shown = name if len(name) <= 22 else name[:21] + "…"
        parts.append(text(left - 10, y + 4, shown, "end"))
        ends = across(values[number].min()), across(values[number].max())
        parts.append(rule(ends[0], y, ends[1], y, "currentColor"))
        for place in reversed(range(len(columns))):
            told = f"{columns[place]}: {values[number, place]:.4f}"
            parts.append(dot(across(values[number, place]), y, 5, colour(place), told))
    parts.append(text(left + width / 2, foot + 32, x_name, "middle"))
    return svg(left + width + 20, foot + 40, parts)


def histogram(
    values: Mapping[str, NDArray[np.float64]], colours: Mapping[str, str], log: bool = False
) -> str:
    """One outline for each series, of the shares of its values, over the range of all.

    Args:
        values: Each series' values, by its name.
        colours: Each series' colour, as CSS has it.
        log: Draw over the logarithm.
    """
    # As many bins as the smallest series fills (the square-root rule).
    num_bins = int(np.clip(np.sqrt(min(map(len, values.values()))), 5, MAX_BINS))
    everything = np.concatenate(list(values.values()))
    scale = np.log2 if log else np.asarray
    low, high = float(scale(everything.min())), float(scale(everything.max()))
    edges = np.linspace(low, high if high > low else low + 1, num_bins + 1)
    shares = {name: np.histogram(scale(each), edges)[0] / len(each) for name, each in values.items()}
    peak = max(each.max() for each in shares.values())
    width, height = HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT
    lines = []
    for name, each in shares.items():
        heights = (height * (1 - each / peak)).round(1)  # (num_bins,)
        steps = np.repeat(np.linspace(0, width, num_bins + 1), 2)[1:-1]
        points = " ".join(f"{x:.1f},{y}" for x, y in zip(steps, np.repeat(heights, 2), strict=True))
        lines.append(
            f'<polyline points="0,{height} {points} {width},{height}" fill="none" stroke="{colours[name]}" '
            f'stroke-width="1.5"><title>{html.escape(name)}</title></polyline>'
        )
    ends = [short_number(everything.min()), short_number(everything.max())]
    return f"""<svg viewBox="-2 -2 {width + 4} {height + FOOT + 4}" role="img">{"".join(lines)}
<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="currentColor" stroke-width="0.5"/>
<g fill="currentColor" font-size="12"><text y="{height + FOOT - 2}">{ends[0]}</text>
<text x="{width}" y="{height + FOOT - 2}" text-anchor="end">{ends[1]}</text></g></svg>"""


def short_number(value: float) -> str:
    """Two digits, or all before the point.

    >>> short_number(0.03051), short_number(1.24), short_number(885.6)
    ('0.031', '1.2', '886')
    """
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
