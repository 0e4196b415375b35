"""What our charts are drawn with: SVG that stands in a page and takes its colours."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from experiments.arrays import Floats


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
