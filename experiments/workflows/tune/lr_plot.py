"""Range-test plot."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ...reporting.style import BLUE, GREY, INK, LEGEND, PALE, RED
from .lr_curve import RangeCurve, Suggestion

HEADROOM = 0.25  # of the way from the lowest loss to that at the start, above the latter


def draw_range_test(curve: RangeCurve, suggestion: Suggestion | None, configured: float) -> Figure:
    """Draws each step's loss, the smoothed curve, and the rates it suggests beside the configured one.

    Args:
        curve: What was measured.
        suggestion: What it says; None where it says nothing.
        configured: The recipe's `model.lr`.
    """
    figure = Figure((6.8, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    smoothed = curve.smoothed()
    axes.plot(curve.rates, curve.losses, ".", ms=3, color=GREY, alpha=0.45, label="each step")
    axes.plot(curve.rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
    if suggestion is not None:
        _mark(axes, curve, suggestion.steepest, "v", INK, "steepest descent")
        _mark(axes, curve, suggestion.lowest, "o", INK, "lowest")
        axes.axvline(suggestion.tenth, color=RED, linewidth=1.4, zorder=1)
        _mark(axes, curve, suggestion.tenth, "D", RED, "suggested, a tenth of it")
    axes.axvline(
        configured, color=GREY, linewidth=1, linestyle="--", zorder=1, label=f"the recipe's, {configured:g}"
    )
    lowest, start = float(smoothed.min()), curve.start
    room = HEADROOM * (start - lowest)  # what diverges would flatten all the rest
    axes.set(xscale="log", xlabel="Learning rate (model.lr)", ylabel="Training loss")
    axes.set_xlim(curve.rates[0], max(curve.rates[-1], configured * 1.2))
    axes.set_ylim(lowest - room, start + 1.6 * room)
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, which="both", width=0.6)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, **LEGEND)
    return figure


def _mark(axes: Axes, curve: RangeCurve, rate: float, marker: str, colour: str, label: str) -> None:
    height = float(np.interp(np.log(rate), np.log(curve.rates), curve.smoothed()))
    told = f"{label}, {rate:.2g}"
    axes.plot([rate], [height], marker, ms=6.5, color=colour, mec="white", mew=0.8, label=told, zorder=4)
