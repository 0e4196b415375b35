"""Intervals and tests over seeds: pure functions of what independent runs gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from scipy import stats

Verdict: TypeAlias = Literal["reproduced", "not reproduced", "underpowered"]

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05


class Interval(NamedTuple):
    """Where a number lies: both ends included, infinite where nothing is known."""

    low: float
    high: float


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of the mean of independent runs; infinite for a single one.

    >>> low, high = t_interval([0.90, 0.92, 0.91])
    >>> f"{low:.4f} {high:.4f}"
    '0.8852 0.9348'
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(-math.inf, math.inf)
    error = math.sqrt(float(np.var(values, ddof=1)) / len(values))
    half_width = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Interval(mean - half_width, mean + half_width)


def equivalence(values: Sequence[float], within: Interval) -> tuple[Verdict, Interval]:
    """Whether the mean over seeds is a claimed value, up to a tolerance (Schuirmann 1987).

    Two one-sided t-tests at 0.05, as the 90 % interval of the mean, which is returned too: the claim is
    reproduced where all of it lies within the tolerance, not reproduced where none of it does, and the
    runs are too few or too unlike to tell where a part of it does.

    Args:
        values: One for each seed.
        within: The claimed value less and plus its tolerance; infinite above where more counts too.

    >>> claim = Interval(0.9855, 0.9955)
    >>> equivalence([0.990, 0.992, 0.991], claim)[0]
    'reproduced'
    >>> equivalence([0.95, 0.96, 0.955], claim)[0]
    'not reproduced'
    >>> equivalence([0.97, 0.999, 0.991], claim)[0]
    'underpowered'
    """
    found = t_interval(values, 1 - 2 * SIGNIFICANCE)
    if within.low <= found.low and found.high <= within.high:
        return "reproduced", found
    if found.low > within.high or found.high < within.low:
        return "not reproduced", found
    return "underpowered", found
