"""The power law of learning curves, error = a + b n^-c, fitted, and what it says of more images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit

from experiments.arrays import Floats
from experiments.statistics import Interval, percentile_interval

MIN_SIZES = 3  # the law has three parameters
STEEPEST = 3.0  # larger exponents are those of noise: 0.07 to 0.5 have been found (Hestness et al. 2017)


@dataclass(frozen=True)
class PowerLaw:
    """error = a + b n^-c (Hestness et al. 2017; Rosenfeld et al. 2020).

    Attributes:
        a: What no number of images takes away.
        b: At `scale` images, what more of them can.
        c: How fast they do.
        scale: n is counted in this many images, so that b is no astronomical number.
    """

    a: float
    b: float
    c: float
    scale: float

    def __call__(self, sizes: Floats) -> Floats:
        """The error after training on so many images, (S,) to (S,)."""
        return np.asarray(_law(sizes / self.scale, self.a, self.b, self.c))


def _law(sizes: Floats, a: float, b: float, c: float) -> Floats:
    return np.asarray(a + b * sizes**-c)


def fit_power_law(sizes: Floats, errors: Floats, resolution: float) -> PowerLaw:
    """By least squares, with a and b at least 0 and c above.

    Each error counts by its own size, as shares of mistakes vary by their square root.

    Args:
        sizes: Training images of each run, (M,), of at least three sizes.
        errors: (M,).
        resolution: The error of half a mistake; none counts as smaller.

    Raises:
        RuntimeError: No such law is near the errors.

    >>> sizes = np.array([100.0, 300, 1000, 3000])
    >>> law = fit_power_law(sizes, 0.02 + 3 * sizes**-0.5, 1e-4)
    >>> round(law.a, 4), round(law.b * law.scale**law.c, 2), round(law.c, 4)
    (0.02, 3.0, 0.5)
    """
    scale = float(sizes.max())
    distinct, where = np.unique(sizes, return_inverse=True)
    means = np.bincount(where, errors) / np.bincount(where)
    least = max(float(means.min()), resolution)
    slope = np.log(max(means[0], resolution) / least) / np.log(distinct[-1] / distinct[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # of the covariance, which nobody asked for
        (a, b, c), _ = curve_fit(
            _law,
            sizes / scale,
            errors,
            p0=(least / 2, least / 2, min(max(slope, 0.1), STEEPEST / 2)),
            sigma=np.sqrt(np.maximum(means[where], resolution)),
            bounds=([0, 0, 1e-6], [np.inf, np.inf, STEEPEST]),
            max_nfev=2000,
        )
    return PowerLaw(float(a), float(b), float(c), scale)


@dataclass(frozen=True)
class Curve:
    """A fitted law, and those of resampled runs and test images.

    Attributes:
        law: Of the runs as they are.
        drawn: Of resampled ones.
    """

    law: PowerLaw
    drawn: tuple[PowerLaw, ...]

    def band(self, sizes: Floats) -> tuple[Floats, Floats]:
        """Both ends of the 95 % interval of the error after so many images, (S,) each."""
        errors = np.stack([law(sizes) for law in self.drawn])
        low, high = np.quantile(errors, [0.025, 0.975], axis=0)
        return low, high

    def doubling(self, size: float) -> tuple[float, Interval]:
        """By how much twice the images would lower the error of `size` images, and its 95 % interval."""
        sizes = np.array([size, 2 * size])
        gains = np.array([-float(np.diff(law(sizes))[0]) for law in (self.law, *self.drawn)])
        return float(gains[0]), percentile_interval(gains[1:])

    def interval(self, name: str) -> Interval:
        """Of a parameter of the law."""
        return percentile_interval(np.array([getattr(law, name) for law in self.drawn]))


def fit_curve(
    sizes: Sequence[int], errors: Sequence[float], drawn: Floats, resolution: float
) -> Curve | None:
    """The law of M runs, and of their bootstrap replicates.

    Args:
        sizes: Training images of each run, (M,).
        errors: Of each run, (M,).
        drawn: The errors on resampled test images, (R, M); runs of one size are drawn anew for each.
        resolution: See `fit_power_law`.

    Returns:
        None where there are fewer than three sizes, or no law is near the errors.
    """
    if len(set(sizes)) < MIN_SIZES:
        return None
    numbers = np.array(sizes, dtype=float)
    try:
        law = fit_power_law(numbers, np.array(errors), resolution)
    except RuntimeError:
        return None
    resampled = []
    for row, members in zip(drawn, _redrawn(numbers, len(drawn)), strict=True):
        try:
            resampled.append(fit_power_law(numbers[members], row[members], resolution))
        except RuntimeError:  # of a few resamples; the others are enough
            continue
    return Curve(law, tuple(resampled)) if resampled else None


def _redrawn(sizes: Floats, count: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Which runs each of R resamples has, (M,): of each size as many as there are, with replacement."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    for _ in range(count):
        yield np.concatenate([generator.choice(group, len(group)) for group in groups])
