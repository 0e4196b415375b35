"""Figures of a sweep: pure functions from `report.shown_trials` to matplotlib figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from optuna.trial import FrozenTrial, TrialState

from ...evaluation.array_types import Floats
from ...reporting.style import BLUE, GREY, INK, LEGEND, PALETTE, RED, TITLE, clean_axes, shorten
from ..study.trials import STATE_NAMES, complete_trials, is_on_front, last_value
from .axes import Column, drawn_range, padded, smoothed

STATE_COLOURS = {TrialState.COMPLETE: BLUE, TrialState.PRUNED: PALETTE[3]}
STATE_COLOURS |= {TrialState.FAIL: RED, TrialState.RUNNING: PALETTE[1]}
HOLLOW: dict[str, Any] = {"s": 16, "facecolor": "white", "edgecolor": STATE_COLOURS[TrialState.PRUNED]}
BETTER = ListedColormap(colormaps["Blues"](np.linspace(0.2, 1, 256)))  # the best is darkest
NOT_USED = -0.12  # where a line of parallel coordinates passes an axis whose key its trial lacks
UNITS = (("h", 3600), ("min", 60), ("s", 1))


def history(trials: Sequence[FrozenTrial], metric: str, minimized: bool) -> Figure:
    """Draw each trial's value in the order of the search, and the best so far; one must be complete.

    A pruned trial stands at the last value that it reported, a failed one as a cross at the foot.
    """
    figure, axes = _frame((6.4, 3.4))
    complete = complete_trials(trials)
    pruned = [(each.number, last_value(each)) for each in _pruned(trials)]
    limits = drawn_range([*(each.values[0] for each in complete), *(value for _, value in pruned)], minimized)
    if pruned:
        numbers, values = zip(*pruned, strict=True)
        axes.scatter(numbers, np.clip(values, *limits), label="pruned", **HOLLOW)
    if complete:
        numbers, values = zip(*((each.number, each.values[0]) for each in complete), strict=True)
        axes.scatter(numbers, np.clip(values, *limits), s=18, color=BLUE, label="complete", zorder=3)
        best = (np.minimum if minimized else np.maximum).accumulate(values)
        end = max(each.number for each in trials)
        steps = [*numbers, end], np.clip([*best, best[-1]], *limits)
        axes.step(*steps, where="post", color=INK, linewidth=1.2, label="best so far")
        winner = numbers[int(np.argmin(values) if minimized else np.argmax(values))]
        axes.set_title(f"Best: {best[-1]:.4f}, trial {winner}", **TITLE)
    if failed := [each.number for each in trials if each.state is TrialState.FAIL]:
        foot: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.scatter(failed, np.zeros(len(failed)), s=22, marker="x", color=RED, label="failed", **foot)
    axes.set(xlabel="Trial", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    figure.legend(loc="outside right upper", **LEGEND)
    return figure


def curves(trials: Sequence[FrozenTrial], metric: str, minimized: bool, steps: str = "Epoch") -> Figure:
    """Draw the metric after each step, of all trials that reported one, with the best trial on top."""
    figure, axes = _frame((6.4, 3.4))
    best = (min if minimized else max)(complete_trials(trials), key=last_value, default=None)
    reported: list[float] = []
    for trial in sorted(trials, key=lambda each: each.state is not TrialState.PRUNED):
        if not (points := sorted(trial.intermediate_values.items())):
            continue
        places, values = zip(*points, strict=True)
        reported += values
        colour, name = STATE_COLOURS[trial.state], STATE_NAMES[trial.state]
        look: dict[str, Any] = {"color": colour, "linewidth": 0.9, "alpha": 0.7, "label": name}
        if best is not None and trial.number == best.number:
            look = {"color": INK, "linewidth": 2, "zorder": 4, "label": f"best (trial {best.number})"}
        axes.plot(places, values, **look)
        if trial.state is not TrialState.COMPLETE or len(places) == 1:
            axes.plot(places[-1], values[-1], "o", color=colour, markersize=2.8, zorder=3)
    finite = [value for value in reported if math.isfinite(value)]
    low, high = drawn_range(finite, minimized) if finite else (0, 1)
    axes.set(xlabel=steps, ylabel=metric, ylim=padded(low, high))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    _state_legend(figure, axes)
    return figure


def parallel_coordinates(trials: Sequence[FrozenTrial], metric: str, minimized: bool) -> Figure:
    """Draw each complete trial as a line through its values; the darker, the better; the best in red.

    A line that falls to the foot of an axis is a trial without this key. At least one must be complete.
    """
    complete = complete_trials(trials)
    values = np.array([each.values[0] for each in complete])
    limits = drawn_range(values, minimized)
    keys = [Column.of(name, complete) for name in _names(complete)]
    columns = [*keys, Column(metric, np.clip(values, *limits), limits, False, ())]
    heights = np.stack([column.unit(column.places) for column in columns])  # (K + 1, N)
    heights[np.isnan(heights)] = NOT_USED
    figure = Figure((1.1 + 1.35 * len(columns), 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    goodness = heights[-1] if not minimized else 1 - heights[-1]
    order = np.argsort(goodness, kind="stable")
    for index in order:
        best = index == order[-1]
        look: dict[str, Any] = {"color": RED if best else BETTER(goodness[index])}
        axes.plot(heights[:, index], linewidth=2.2 if best else 1, alpha=1 if best else 0.85, **look)
    for place, column in enumerate(columns):
        axes.axvline(place, color=INK, linewidth=0.7, zorder=3)
        box: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
        for tick, name in zip(*column.ticks(), strict=True):
            height = float(column.unit(np.array([tick]))[0])
            axes.plot([place, place + 0.03], [height, height], color=INK, linewidth=0.7, zorder=4)
            text = axes.text(place + 0.05, height, name, size=7.5, va="center", color=INK, zorder=5)
            text.set_bbox(box)
        if np.isnan(column.places).any():
            axes.text(
                place + 0.05, NOT_USED, "not used", size=7.5, va="center", color=GREY, zorder=5, bbox=box
            )
    axes.set(xlim=(-0.25, len(columns) - 0.6), yticks=[], ylim=(-0.17, 1.04))
    axes.set_xticks(range(len(columns)), [column.name for column in columns], size=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def slices(trials: Sequence[FrozenTrial], metric: str, minimized: bool) -> Figure:
    """Draw the metric over each varied key, one panel a key; later trials are darker.

    Pruned trials stand hollow at the last value that they reported. At least one
    trial must be complete with varied keys.
    """
    complete = complete_trials(trials)
    pruned = _pruned(trials)
    values = np.array([each.values[0] for each in complete])
    last_values = [last_value(each) for each in pruned]
    limits = drawn_range([*values, *last_values], minimized)
    names = _names(complete)
    across = min(len(names), 4)
    down = -(-len(names) // across)
    figure = Figure((0.9 + 2.1 * across, 0.3 + 2.4 * down), dpi=150, layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    numbers = [each.number for each in complete]
    order = Normalize(min(numbers), max(numbers))
    look: dict[str, Any] = {"cmap": BETTER, "norm": order, "edgecolor": "white", "linewidth": 0.4}
    for axes, name in zip(panels.flat, names, strict=False):
        column = Column.of(name, [*complete, *pruned])
        axes.scatter(column.places[len(complete) :], np.clip(last_values, *limits), **HOLLOW)
        places, heights = column.places[: len(complete)], np.clip(values, *limits)
        axes.scatter(places, heights, s=22, c=numbers, zorder=3, **look)
        column.label(axes, "x")
        axes.set_ylim(*padded(*limits))
        clean_axes(axes)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(metric)
    _scale(figure, ScalarMappable(order, BETTER), "Trial", MaxNLocator(nbins=6, integer=True))
    return figure


def contours(trials: Sequence[FrozenTrial], metric: str, minimized: bool, names: Sequence[str]) -> Figure:
    """Draw the metric over each pair of the named keys, of which complete trials must have some.

    Colour is the mean of nearby complete trials, weighted by a Gaussian of their distance; places
    far from all trials stay white. Dots are the trials, the ringed one the best.
    """
    pairs = list(combinations(names, 2))
    figure = Figure((1.0 + 2.7 * len(pairs), 2.8), dpi=150, layout="constrained")
    complete = complete_trials(trials)
    limits = drawn_range([each.values[0] for each in complete], minimized)
    look: dict[str, Any] = {"cmap": BETTER.reversed() if minimized else BETTER, "norm": Normalize(*limits)}
    for axes, pair in zip(figure.subplots(1, len(pairs), squeeze=False).flat, pairs, strict=True):
        both = [each for each in complete if all(name in each.params for name in pair)]
        values = np.array([each.values[0] for each in both])  # (N,)
        x, y = (Column.of(name, both) for name in pair)
        means = smoothed(x, y, np.clip(values, *limits), points=100)
        axes.pcolormesh(x.grid(100), y.grid(100), means, shading="nearest", rasterized=True, **look)
        dots: dict[str, Any] = {"linewidth": 0.7, "edgecolor": "white", **look}
        axes.scatter(x.places, y.places, s=20, c=np.clip(values, *limits), **dots)
        best = int(np.argmin(values) if minimized else np.argmax(values))
        ring: dict[str, Any] = {"facecolor": "none", "edgecolor": RED, "linewidth": 1.6}
        axes.scatter(x.places[best], y.places[best], s=70, **ring)
        x.label(axes, "x")
        y.label(axes, "y")
        clean_axes(axes)
        axes.grid(visible=False)
    _scale(figure, ScalarMappable(look["norm"], look["cmap"]), metric)
    return figure


def importances(shares: Mapping[str, float], metric: str) -> Figure:
    """Draw how much of the metric's variance each key explains, as fractions that sum to 1."""
    figure, axes = _frame((5.2, 0.9 + 0.32 * len(shares)))
    names = [shorten(name, 28) for name in shares][::-1]
    bars = axes.barh(names, list(shares.values())[::-1], color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8, color=INK)
    axes.set(xlabel=f"Share of the variance of {metric}", xlim=(0, max(shares.values()) * 1.12))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


def timeline(trials: Sequence[FrozenTrial], now: datetime) -> Figure:
    """Draw when each trial ran, by its state, in as many rows as ran at once; running ones last until `now`.

    Of those trials that have started, of which there must be one.
    """
    spans = [
        (each.datetime_start, each.datetime_complete or now, each) for each in trials if each.datetime_start
    ]
    spans.sort(key=lambda span: (span[0], span[2].number))
    origin = spans[0][0]
    offsets = [((begin - origin).total_seconds(), (end - origin).total_seconds()) for begin, end, _ in spans]
    latest = max(end for _, end in offsets)
    unit, seconds = next((unit, size) for unit, size in UNITS if latest > 2 * size or size == 1)
    row_ends: list[float] = []
    figure, axes = _frame((7.6, 1))
    for (_, _, trial), (begin, end) in zip(spans, offsets, strict=True):
        row = next((row for row, until in enumerate(row_ends) if until <= begin), len(row_ends))
        row_ends[row : row + 1] = [end]
        bar: dict[str, Any] = {"color": STATE_COLOURS[trial.state], "edgecolor": "white", "linewidth": 0.5}
        width = (end - begin) / seconds
        axes.barh(row + 1, width, 0.8, left=begin / seconds, label=STATE_NAMES[trial.state], **bar)
        if end - begin > 0.03 * latest:
            place = (begin / seconds + width / 2, row + 1)
            axes.text(*place, str(trial.number), size=7, color="white", ha="center", va="center")
    figure.set_figheight(1.1 + 0.35 * len(row_ends))
    axes.set(xlabel=f"Time since the first start ({unit}); numbers are trials", ylabel="At once")
    axes.set(yticks=range(1, len(row_ends) + 1), ylim=(len(row_ends) + 0.6, 0.4))
    axes.grid(visible=False, axis="y")
    _state_legend(figure, axes)
    return figure


def pareto_front(numbers: Sequence[int], values: Floats, names: Sequence[str], minimized: bool) -> Figure:
    """Draw the first objective over each further one; trials that none surpasses in all are numbered.

    Args:
        numbers: The trials' numbers, N of them.
        values: (N, M), finite; all but the first objective are to be small.
        names: The M objectives' names.
        minimized: Whether the first is to be small too.
    """
    on_front = is_on_front(values * np.array([1 if minimized else -1] + [1] * (len(names) - 1)))  # (N,)
    figure = Figure((0.6 + 4 * (len(names) - 1), 3.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(names) - 1, sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, range(1, len(names)), strict=True):
        axes.scatter(
            values[~on_front, column], values[~on_front, 0], s=16, color=PALETTE[3], label="surpassed"
        )
        front = np.flatnonzero(on_front)[np.argsort(values[on_front, column])]
        if len(names) == 2:  # of more objectives, a plane shows only the front's shadow
            axes.step(values[front, 1], values[front, 0], where="post", color=BLUE, linewidth=1)
        axes.scatter(
            values[front, column], values[front, 0], s=26, color=BLUE, label="Pareto front", zorder=3
        )
        for index in front:
            place: dict[str, Any] = {"xytext": (4, -9), "textcoords": "offset points", "size": 7}
            axes.annotate(str(numbers[index]), (values[index, column], values[index, 0]), **place)
        spread = values[:, column]
        axes.set_xlabel(names[column])
        if 0 < 5 * spread.min() < spread.max():
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        clean_axes(axes)
    panels[0].set_ylabel(names[0])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, **LEGEND)
    return figure


def _frame(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(inches, dpi=150, layout="constrained")
    axes = figure.subplots()
    clean_axes(axes)
    return figure, axes


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _pruned(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Pruned trials with a finite last value."""
    pruned = [each for each in trials if each.state is TrialState.PRUNED]
    return [each for each in pruned if math.isfinite(last_value(each))]


def _state_legend(figure: Figure, axes: Axes) -> None:
    """Each state once, though every trial has its own mark."""
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", **LEGEND)


def _scale(figure: Figure, mappable: ScalarMappable, name: str, ticks: Any = None) -> None:
    scale = figure.colorbar(mappable, ax=figure.axes, ticks=ticks, pad=0.02, aspect=30)
    scale.set_label(name, fontsize=9)
    scale.outline.set_linewidth(0.6)
    scale.ax.tick_params(labelsize=8, width=0.6)
