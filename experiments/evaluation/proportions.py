"""Intervals for proportions of images."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from .array_types import Floats
from .significance import CONFIDENCE, Interval, t_interval

PRIOR = 1.0  # units with a mistake that a design effect of 1 weighs as much as, chosen by simulation


def share_interval(
    scores: Floats, confidence: float = CONFIDENCE, is_count: bool = True, freedom: float | None = None
) -> Interval:
    """Interval of the mean of scores (U,) that lies in [0, 1], were other units drawn.

    Of scores that are 0 or 1 it is Wilson's (1927). Else it is Wilson's with an effective number of units and
    Student's quantile (Korn and Graubard 1998): means over several seeds vary less than single runs, by the
    design effect, which is their variance over that of as many 0s and 1s. Few mistakes hardly tell it, and
    none at all do not: it is therefore drawn towards 1.

    Args:
        scores: As `darkroom.experiments.evaluation.bootstrap.unit_scores` gives them, the mean over runs of
            each unit.
        confidence: How often the interval is to hold the mean, over other units.
        is_count: Whether the mean counts images, so that it tells something even at 0 and at 1. Of others,
            such as macro-F1, there is no interval then: both ends are infinite.
        freedom: Degrees of freedom, where units are groups of images (then of no count, for which
            `grouped_share_interval` in `darkroom.experiments.evaluation.clustered` is); None for U - 1.

    >>> low, high = share_interval(np.ones(50))
    >>> f"{low:.3f} {high:.3f}"
    '0.929 1.000'
    """
    from statsmodels.stats.proportion import proportion_confint  # takes half a second to import

    known = scores[~np.isnan(scores)]
    units, mean = len(known), min(max(float(known.mean()), 0.0), 1.0)
    spread = mean * (1 - mean)
    if units < 2 or (spread == 0 and not is_count):
        return Interval(-math.inf, math.inf)
    if is_count and np.isin(known, (0, 1)).all():
        ends = proportion_confint(int(known.sum()), units, alpha=1 - confidence, method="wilson")
        return Interval(float(ends[0]), float(ends[1]))
    variance = float(known.var(ddof=1))
    informative = int((np.abs(known - np.median(known)) > 1e-12).sum())
    effect = variance / spread if spread else 1.0
    if is_count:
        effect = (informative * effect + PRIOR) / (informative + PRIOR)
    quantile = float(stats.t.ppf((1 + confidence) / 2, freedom or units - 1))
    squared = quantile**2 * effect / units  # quantile² / effective number
    middle = (mean + squared / 2) / (1 + squared)
    half = math.sqrt(squared * spread + squared**2 / 4) / (1 + squared)
    return Interval(max(middle - half, 0.0), min(middle + half, 1.0))


def mean_interval(scores: Floats, confidence: float = CONFIDENCE, freedom: float | None = None) -> Interval:
    """Student's interval of the mean of scores (U,) that may be any number, were other units drawn.

    Degrees of freedom are U - 1 unless they are given, as of groups of unequal size.

    >>> low, high = mean_interval(np.array([0.0, 1, 2, 3]))
    >>> f"{low:.3f} {high:.3f}"
    '-0.554 3.554'
    """
    known = scores[~np.isnan(scores)]
    if freedom is None:
        return t_interval(known.tolist(), confidence)
    half = (
        float(stats.t.ppf((1 + confidence) / 2, freedom)) * float(known.std(ddof=1)) / math.sqrt(len(known))
    )
    return Interval(float(known.mean()) - half, float(known.mean()) + half)
