"""Images unlike the rest in size, shape, brightness or contrast: robust z-scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Iglewicz and Hoaglin (1993) name 3.5 for normal samples; photographs have heavier tails.
MIN_SCORE = 5.0


def robust_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many standard deviations each value (N,) lies from the median, by estimates outliers can't move.

    The standard deviation is estimated from the median absolute deviation or, where more than half of the
    values are one and the same, from the mean absolute deviation (Iglewicz and Hoaglin 1993). Where
    all values are the same, all scores are 0.

    >>> robust_scores(np.array([1.0, 2.0, 3.0, 4.0, 100.0])).round(1).tolist()
    [-1.3, -0.7, 0.0, 0.7, 65.4]
    >>> robust_scores(np.array([5.0, 5.0, 5.0])).tolist()
    [0.0, 0.0, 0.0]
    """
    deviations = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(deviations)) or 1.2533 * np.abs(deviations).mean()
    return deviations / spread if spread > 0 else np.zeros_like(deviations)
