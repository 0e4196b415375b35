"""Tests a difference over seeds and images at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from .array_types import Floats
from .significance import CONFIDENCE, MAX_SEEDS, POWER, SIGNIFICANCE, Interval

MAX_IMAGES = 10**9  # further than this nobody looks for a difference


class Needed(NamedTuple):
    """What would tell a difference of the observed size: more seeds, or more images where no seeds would.

    Attributes:
        seeds: Of each configuration, given these images; None where no number of seeds would do.
        images: At least so many, where these are too few for any number of seeds; None elsewhere.
    """

    seeds: int | None
    images: int | None = None


@dataclass(frozen=True)
class TwoWay:
    """A difference of two means over seeds and images, and where its variance comes from.

    Attributes:
        difference: First mean less second mean.
        over_seeds: Squared standard error over seeds, of each configuration.
        over_images: Squared standard error over images, of the difference.
        residual: The part of `over_images` that differs from seed to seed, of each configuration. It is in
            `over_seeds` as well.
        num_seeds: Runs of each configuration.
        num_units: Images, or groups of images, that were drawn independently.
        folds: Whether the runs are folds. Each fold judges its own images, so that the spread over folds
            holds the variance over images already.
        freedom_of_units: Degrees of freedom of `over_images`; None for one less than there are units, which
            is too many where the units are groups of unequal size.
    """

    difference: float
    over_seeds: tuple[float, float]
    over_images: float
    residual: tuple[float, float]
    num_seeds: tuple[int, int]
    num_units: int
    folds: bool = False
    freedom_of_units: float | None = None

    @property
    def variance(self) -> float:
        """Squared standard error over both: the residual counts once, neither part less than whole."""
        seeds = sum(self.over_seeds)
        if self.folds:
            return max(seeds, self.over_images)
        return max(seeds + self.over_images - sum(self.residual), seeds, self.over_images)

    @property
    def freedom(self) -> float:
        """Degrees of freedom (Satterthwaite 1946).

        Over seeds there are no more than if those of both varied alike: with unequal numbers of seeds Welch's
        test otherwise rejects too often, where the fewer seeds happen to lie close together.
        """
        seeds, images = sum(self.over_seeds), self.over_images
        if self.folds:
            seeds, images = (seeds, 0.0) if seeds >= images else (0.0, images)
        shares = images**2 / self._freedom_of_units()
        if seeds:
            shares += seeds**2 / min(self._freedom(self.over_seeds), self._most_freedom())
        return self.variance**2 / shares

    def _freedom(self, parts: tuple[float, float]) -> float:
        """Returns the degrees of freedom of a sum of variances over the seeds of each configuration."""
        counted = zip(parts, self.num_seeds, strict=True)
        return sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in counted)

    def _freedom_of_units(self) -> float:
        return self.num_units - 1 if self.freedom_of_units is None else self.freedom_of_units

    def _most_freedom(self) -> float:
        one, other = self.num_seeds
        return self._freedom((1 / one, 1 / other))

    @property
    def p_value(self) -> float:
        """The p-value of no difference, two-sided."""
        if self.difference == 0:
            return 1.0
        return float(2 * stats.t.sf(abs(self.difference) / math.sqrt(self.variance), self.freedom))

    @property
    def interval(self) -> Interval:
        """95 % interval of the difference, were other seeds drawn and other images judged."""
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * math.sqrt(self.variance)
        return Interval(self.difference - half, self.difference + half)

    def needed(self) -> Needed | None:
        """How many seeds or images find a difference of this size four times in five; None without any."""
        if self.difference == 0 or self.folds:  # folds can't be added
            return None
        if self._power(MAX_SEEDS) >= POWER:
            low, high = 2, MAX_SEEDS
            while low < high:  # the power rises with the seeds
                middle = (low + high) // 2
                low, high = (low, middle) if self._power(middle) >= POWER else (middle + 1, high)
            return Needed(low)
        bearable = (self.difference / _distance_for_power()) ** 2
        images = math.ceil(self.num_units * self._images_alone() / bearable)
        return Needed(None, images) if self.num_units < images <= MAX_IMAGES else None

    def _images_alone(self) -> float:
        """The part of the variance that no number of seeds takes away."""
        return max(self.over_images - sum(self.residual), 0.0)

    def _power(self, seeds: int) -> float:
        """Probability that so many seeds of each find the difference, on as many images."""
        parts = [
            max(over_seeds, residual) * count / seeds
            for over_seeds, residual, count in zip(
                self.over_seeds, self.residual, self.num_seeds, strict=True
            )
        ]
        images = self._images_alone()
        variance = sum(parts) + images
        if variance == 0:
            return 1.0
        shares = sum(part**2 / (seeds - 1) for part in parts) + images**2 / self._freedom_of_units()
        freedom = variance**2 / shares
        limit = stats.t.ppf(1 - SIGNIFICANCE / 2, freedom)
        distance = abs(self.difference) / math.sqrt(variance)
        if distance > 30:  # where scipy's noncentral t gives NaN, and no doubt is left
            return 1.0
        return float(stats.nct.sf(limit, freedom, distance))


def two_way_test(
    values: tuple[Sequence[float], Sequence[float]],
    scores: tuple[Floats, Floats],
    shared: tuple[float, float] = (0.0, 0.0),
    same_folds: bool = False,
    freedom: float | None = None,
) -> TwoWay:
    """Tests the difference between two configurations over seeds and images at once.

    The variance is SE_seeds² + SE_images² - SE_residual², as in an analysis of variance with crossed random
    effects: what an image and a seed have only together is in both standard errors, and is subtracted once.
    Runs with the same seed are not paired: seeds that go together only make the test more careful.

    Args:
        values: The metric of each run of either configuration, of two or more runs.
        scores: Of the same runs, (U, S) each, on the same U units: columns have the runs' metrics as means.
            Rows are what was drawn independently: images, or the groups of images that
            `darkroom.experiments.evaluation.bootstrap.unit_scores` was given. NaN where a run did not judge a
            unit, as with folds.
        shared: By how much folds of each share training images, 1 / (k - 1), as in `folds_interval`; 0 for
            seeds.
        same_folds: Whether the runs are the same folds in the same order, whose differences are then tested.
        freedom: Degrees of freedom over units, where these are groups of images; None for U - 1.

    >>> generator = np.random.default_rng(0)
    >>> one, other = (generator.random((2, 500, 3)) < [[[0.95]], [[0.85]]]).astype(float)
    >>> found = two_way_test((one.mean(0), other.mean(0)), (one, other))
    >>> found.p_value < 0.001, found.needed()
    (True, Needed(seeds=2, images=None))
    """
    assert min(map(len, values)) > 1
    if same_folds:
        spreads = [float(np.var(np.subtract(*values), ddof=1)), 0.0]
    else:
        spreads = [float(np.var(each, ddof=1)) for each in values]
    over_seeds = [
        spread * (1 / len(each) + part) for spread, each, part in zip(spreads, values, shared, strict=True)
    ]
    folds = max(shared) > 0
    residual = (0.0, 0.0) if folds else (residual_variance(scores[0]), residual_variance(scores[1]))
    one, other = (np.nanmean(each, axis=1) for each in scores)
    return TwoWay(
        difference=float(np.mean(values[0]) - np.mean(values[1])),
        over_seeds=(over_seeds[0], over_seeds[1]),
        over_images=variance_of_mean(one - other, freedom is not None),
        residual=residual,
        num_seeds=(len(values[0]), len(values[1])),
        num_units=len(one),
        folds=folds,
        freedom_of_units=freedom,
    )


def variance_of_mean(differences: Floats, grouped: bool = False) -> float:
    """Squared standard error of the mean of paired differences (U,), with two pseudo-observations.

    One pseudo-image speaks for either side, with the weight of a typical difference (Agresti and Min 2005):
    a few images that differ by chance to the same side are then no certainty. Without any difference it is
    that of one image. Of groups of images there may be a handful, whose variance pseudo-observations would
    halve: it is then the usual one, which does for Student's quantile at few degrees of freedom.

    >>> round(variance_of_mean(np.array([1.0, -1, 0, 0])), 4), variance_of_mean(np.zeros(8))
    (0.0833, 0.01)
    """
    count, squares = len(differences) + 2, float(np.square(differences).sum())
    if grouped and squares:
        return float(differences.var(ddof=1)) / len(differences)
    typical = squares / float(np.abs(differences).sum()) if squares else 1.0
    centered = squares + typical**2 - float(differences.sum()) ** 2 / count
    return float(centered / count**2)


def difference_interval(differences: Floats, freedom: float | None = None) -> Interval:
    """95 % interval of the mean of paired differences (U,) of two fixed models, were other units drawn.

    Degrees of freedom are U - 1 unless they are given, as of groups of unequal size.
    """
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom or len(differences) - 1))
    half *= math.sqrt(variance_of_mean(differences, freedom is not None))
    mean = float(differences.mean())
    return Interval(mean - half, mean + half)


def difference_p_value(differences: Floats, freedom: float | None = None) -> float:
    """Returns the p-value that two fixed models do equally well, from paired differences (U,) over units."""
    variance = variance_of_mean(differences, freedom is not None)
    if variance == 0:  # all groups differ alike
        return 0.0
    distance = abs(float(differences.mean())) / math.sqrt(variance)
    return float(2 * stats.t.sf(distance, freedom or len(differences) - 1))


def residual_variance(scores: Floats) -> float:
    """Squared standard error of the mean of scores (U, S), of what units and runs have only together."""
    units, runs = scores.shape
    if min(units, runs) < 2:
        return 0.0
    rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    return float(np.square(rest).sum() / ((units - 1) * (runs - 1) * units * runs))


def _distance_for_power() -> float:
    """How many standard errors a difference must be from 0 to be found four times in five."""
    return float(stats.norm.ppf(1 - SIGNIFICANCE / 2) + stats.norm.ppf(POWER))
