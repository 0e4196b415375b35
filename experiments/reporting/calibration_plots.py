"""Reliability diagram and risk-coverage curve."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..evaluation.array_types import Floats, Ints
from ..evaluation.calibration import NUM_BINS, bin_scores, confidences, decisions, risk_coverage
from .style import BLUE, GREY, INK, LEGEND, RED, TITLE, clean_axes

MARKED_COVERAGES = (0.8, 0.9, 1.0)
MAX_POINTS = 2000  # of a curve; a picture has no more columns


def reliability_diagram(
    targets: Ints, probabilities: Floats, scaled: Floats | None = None, num_bins: int = NUM_BINS
) -> Figure:
    """Draw accuracy against top-label confidence in equally wide bins, above their histogram.

    `targets` are classes, (N,), `probabilities` (N, C); where they are given, those `scaled` by a
    temperature stand beside them. Titles have the expected calibration error (Guo et al. 2017,
    equation 3), as a fraction.

    Of labels, `targets` (N, C), it is how often a label is there against its probability, all labels
    taken together, and the error in the title is the mean over labels.
    """
    shown = [probabilities] if scaled is None else [probabilities, scaled]
    names = ["Expected calibration error"] if scaled is None else ["As trained: error", "Scaled: error"]
    figure = Figure((4.4 if scaled is None else 7.6, 5.0), dpi=150, layout="constrained")
    grid = figure.subplots(
        2, len(shown), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False
    )  # (2, 1 or 2)
    for column, name, each in zip(grid.T, names, shown, strict=True):
        error = _draw_reliability(column, targets, each, num_bins)
        column[0].set_title(f"{name} {error:.4f}", **TITLE)
    handles, labels = grid[0, 0].get_legend_handles_labels()  # bars may fill all of the axes
    figure.legend(handles, labels, loc="outside upper center", ncols=len(shown) + 1, **LEGEND)
    what = "share of images with the label" if targets.ndim == 2 else "accuracy"
    grid[0, 0].set_ylabel(what.capitalize())
    grid[1, 0].set_ylabel("Share")
    return figure


def _draw_reliability(axes: Sequence[Axes], targets: Ints, probabilities: Floats, num_bins: int) -> float:
    """Draws bars and their histogram into two axes; returns the expected calibration error."""
    pairs = confidences(targets, probabilities)
    error = float(np.mean([bin_scores(*pair, num_bins).error for pair in pairs]))
    hits, scores = (np.concatenate(each) for each in zip(*pairs, strict=True))
    bins = bin_scores(hits, scores, num_bins)
    several = targets.ndim == 2
    judged = "share of images with the label" if several else "accuracy"
    mean = "probability" if several else "confidence"
    top, bottom = axes
    bar: dict[str, Any] = {"width": 1 / num_bins, "align": "edge", "edgecolor": "white"}
    left = bins.places / num_bins
    top.bar(left, bins.shares, color=BLUE, label=judged, **bar)
    bar |= {"edgecolor": RED, "facecolor": "none", "linewidth": 0.7, "hatch": "////"}
    top.bar(left, bins.gaps, bottom=bins.shares, label=f"gap to mean {mean}", **bar)
    top.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--", label="perfect calibration")
    top.set(xlim=(0, 1), ylim=(0, 1.02))
    bottom.bar(left, bins.sizes / len(scores), 1 / num_bins, align="edge", color=GREY, ec="white")
    bottom.set_xlabel("Probability of the label" if several else "Confidence in the predicted class")
    clean_axes(top)
    clean_axes(bottom)
    return error


def risk_coverage_curve(targets: Ints, probabilities: Floats, ranking: Floats) -> Figure:
    """Draw the share of mistakes among the images that the network is surest of, against how many these are.

    `targets` are classes, (N,), or labels, (N, C), each of which is a decision of its own; `ranking` (N, C)
    says how sure the network is, as probabilities or log odds. The lowest
    curve there can be, where all mistakes are what the network is least sure of, is dotted.
    """
    wrong, sure = decisions(targets, probabilities, ranking)
    coverages, risks = risk_coverage(wrong, sure)
    best = np.cumsum(np.sort(wrong)) / np.arange(1, len(wrong) + 1)
    drawn = np.unique(np.linspace(0, len(risks) - 1, MAX_POINTS).round().astype(int))
    figure = Figure((4.8, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot(coverages[drawn], risks[drawn], color=BLUE, linewidth=1.5, label="surest first")
    best_style: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": ":"}
    axes.plot(coverages[drawn], best[drawn], label="mistakes last, the best there can be", **best_style)
    for coverage in MARKED_COVERAGES:
        risk = risks[round(coverage * len(risks)) - 1]
        axes.plot(coverage, risk, "o", color=BLUE, markersize=4, clip_on=False)
        text = axes.annotate(f"{risk:.2%}", (coverage, risk), (-5, 6), textcoords="offset points")
        text.set(ha="right", fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    axes.set(xlim=(0, 1), ylim=(0, max(1.15 * float(risks[drawn].max()), 1e-3)))
    axes.set(xlabel=f"Share of {'labels' if targets.ndim == 2 else 'images'} that are judged")
    axes.set(ylabel="Share of them that are wrong")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.set_title(f"Area under the risk-coverage curve {risks.mean():.4f}", **TITLE)
    axes.legend(loc="upper left", **LEGEND)
    clean_axes(axes)
    return figure
