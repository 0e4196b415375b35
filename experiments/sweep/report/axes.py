"""Axis scaling of parameters and metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from ...evaluation.array_types import Floats
from ...reporting.style import shorten

KERNEL_WIDTH = 0.1  # of a range, in the smoothed map of two keys


@dataclass(frozen=True)
class Column:
    """One varied key's values over trials, as places on an axis; categories stand at 0, 1, 2, ...

    Attributes:
        places: (N,), NaN for trials without this key.
        bounds: The range searched; of categories, the first and the last place.
        categories: Names in the order of the recipe; none for a range.
    """

    name: str
    places: Floats
    bounds: tuple[float, float]
    log: bool
    categories: tuple[str, ...]

    @classmethod
    def of(cls, name: str, trials: Sequence[FrozenTrial]) -> Column:
        """The column of a key that at least one trial has."""
        ranges: list[Any] = [trial.distributions[name] for trial in trials if name in trial.params]
        values = [trial.params.get(name, math.nan) for trial in trials]
        if not isinstance(ranges[0], CategoricalDistribution):
            bounds = min(each.low for each in ranges), max(each.high for each in ranges)
            return cls(name, np.array(values, float), bounds, ranges[0].log, ())
        choices = list(dict.fromkeys(choice for each in ranges for choice in each.choices))
        places = [choices.index(value) if value in choices else math.nan for value in values]
        names = tuple(shorten(str(choice), 16) for choice in choices)
        return cls(name, np.array(places, float), (0, len(choices) - 1), False, names)

    def unit(self, places: Floats) -> Floats:
        """Places as fractions of the range searched; of a single value, a half."""
        low, high = self.bounds
        if low == high:
            return np.where(np.isnan(places), places, 0.5)
        if self.log:
            return np.asarray(np.log(places / low) / math.log(high / low))
        return np.asarray((places - low) / (high - low))

    def grid(self, points: int) -> Floats:
        """Places over the whole range, evenly in its own scale; of categories, each once."""
        if self.categories:
            return np.arange(len(self.categories), dtype=float)
        return (np.geomspace if self.log else np.linspace)(*self.bounds, points)

    def ticks(self) -> tuple[Floats, list[str]]:
        """Round places within the range, with what to write there."""
        if self.categories:
            return self.grid(0), list(self.categories)
        narrow = self.log and self.bounds[1] < 300 * self.bounds[0]
        whole = np.array_equal(self.places, np.round(self.places), equal_nan=True)
        decades, even = (
            LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6),
            MaxNLocator(5, integer=whole),
        )
        places = np.asarray((decades if self.log else even).tick_values(*self.bounds))
        low, high = self.bounds
        slack = 1e-9 * (high - low)  # three times 0.2 is more than 0.6
        places = places[(places >= low - slack) & (places <= high + slack)]
        places = places if len(places) > 1 else np.array(self.bounds)
        return places, [f"{place:.5g}" for place in places]

    def label(self, axes: Axes, side: str) -> None:
        """Make one side, x or y, of the axes this column's."""
        axes.set(**{f"{side}label": self.name, f"{side}scale": "log" if self.log else "linear"})
        axis = getattr(axes, f"{side}axis")
        if self.log:
            axis.set_ticks(*self.ticks())
            axis.set_ticks([], minor=True)
        elif self.categories:
            axes.set(**{f"{side}lim": (-0.5, len(self.categories) - 0.5)})
            slanted = side == "x" and sum(map(len, self.categories)) > 24
            axis.set_ticks(*self.ticks(), **({"rotation": 30, "ha": "right"} if slanted else {}))


def drawn_range(values: Sequence[float] | Floats, minimized: bool) -> tuple[float, float]:
    """The range to draw: from the best to the worst, but no further than 3 times the better half's spread.

    One diverged loss would otherwise flatten all the others.
    """
    low, median, high = np.quantile(values, [0, 0.5, 1]).tolist()
    if low == high:
        return low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    if minimized:
        return low, min(high, low + 3 * (median - low)) if median > low else high
    return max(low, high - 3 * (high - median)) if median < high else low, high


def padded(low: float, high: float) -> tuple[float, float]:
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def smoothed(x: Column, y: Column, values: Floats, points: int) -> Floats:
    """The mean of nearby trials' values, (N,), over both columns' grids of so many points, (Y, X).

    Weighted by a Gaussian of their distance; NaN far from all trials.
    """
    near_x, near_y = (_closeness(column, points) for column in (x, y))  # (X, N), (Y, N)
    weights = near_y[:, None] * near_x  # (Y, X, N)
    means = (weights @ values) / np.maximum(weights.sum(axis=2), 1e-12)
    return np.where(weights.max(axis=2) < 0.1, math.nan, means)


def _closeness(column: Column, points: int) -> Floats:
    """Gaussian weights of trials at the places of a column's grid, (G, N); categories don't mix."""
    if column.categories:
        return np.equal(column.grid(0)[:, None], column.places).astype(float)
    distances = column.unit(column.grid(points))[:, None] - column.unit(column.places)
    return np.asarray(np.exp(-0.5 * (distances / KERNEL_WIDTH) ** 2))
