"""Learning-curve plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ...reporting.style import BLUE, GREY, LEGEND, PALE, RED
from .power_law import LearningCurve


def draw_curve(
    sizes: Sequence[int], errors: Sequence[float], curve: LearningCurve | None, label: str, num_seeds: int
) -> Figure:
    """Draws each run, the mean of each size, and the fitted law with its band, on to twice the images.

    Args:
        sizes: Training images of each run, (M,).
        errors: Of each run, (M,); those of 0 have no place on a logarithmic axis.
        curve: The law; None where none was fitted.
        label: What the error is.
        num_seeds: Runs of each size.
    """
    figure = Figure((6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    distinct = sorted(set(sizes))
    means = [
        float(np.mean([e for n, e in zip(sizes, errors, strict=True) if n == size])) for size in distinct
    ]
    if curve is not None:
        grid = np.geomspace(distinct[0], 2 * distinct[-1], 200)
        low, high = curve.band(grid)
        if curve.drawn:
            axes.fill_between(grid, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95 % interval")
        seen = grid <= distinct[-1]
        law = curve.law(grid)
        axes.plot(grid[seen], law[seen], color=BLUE, label=f"a + b n$^{{-c}}$, c = {curve.law.c:.2f}")
        axes.plot(grid[~seen], law[~seen], color=BLUE, linestyle="--", label="on to twice the images")
    axes.plot(sizes, errors, "o", ms=3.5, color=GREY, alpha=0.7, linestyle="none", label="runs")
    if num_seeds > 1:
        axes.plot(distinct, means, "o", ms=6, color=RED, linestyle="none", label=f"mean of {num_seeds} seeds")
    axes.set(xscale="log", yscale="log", xlabel="Training images", ylabel=label)
    ticks = [*distinct, *([2 * distinct[-1]] if curve is not None else [])]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, which="both", width=0.6)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(**LEGEND)
    return figure
