"""A histogram as SVG that stands in a page and takes its colours."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FOOT = 220, 90, 18  # in the picture's own units; the numbers stand below the axis
MAX_BINS = 40


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
    lines = []
    for name, each in shares.items():
        heights = (HEIGHT * (1 - each / peak)).round(1)  # (num_bins,)
        steps = np.repeat(np.linspace(0, WIDTH, num_bins + 1), 2)[1:-1]
        points = " ".join(f"{x:.1f},{y}" for x, y in zip(steps, np.repeat(heights, 2), strict=True))
        lines.append(
            f'<polyline points="0,{HEIGHT} {points} {WIDTH},{HEIGHT}" fill="none" stroke="{colours[name]}" '
            f'stroke-width="1.5"><title>{html.escape(name)}</title></polyline>'
        )
    ends = [short_number(everything.min()), short_number(everything.max())]
    return f"""<svg viewBox="-2 -2 {WIDTH + 4} {HEIGHT + FOOT + 4}" role="img">{"".join(lines)}
<line x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}" stroke="currentColor" stroke-width="0.5"/>
<g fill="currentColor" font-size="12"><text y="{HEIGHT + FOOT - 2}">{ends[0]}</text>
<text x="{WIDTH}" y="{HEIGHT + FOOT - 2}" text-anchor="end">{ends[1]}</text></g></svg>"""


def short_number(value: float) -> str:
    """Two digits, or all before the point.

    >>> short_number(0.03051), short_number(1.24), short_number(885.6)
    ('0.031', '1.2', '886')
    """
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
