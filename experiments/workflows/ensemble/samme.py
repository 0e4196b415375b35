"""SAMME, which is AdaBoost of two classes or more (Hastie et al. 2009, algorithm 2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...evaluation.array_types import Floats


def weighted_error(weights: Floats, wrong: NDArray[np.bool_]) -> float:
    """The share of the weight that lies on wrongly classified images, of weights (N,).

    >>> weighted_error(np.array([1.0, 1.0, 2.0]), np.array([False, False, True]))
    0.5
    """
    return float(weights[wrong].sum() / weights.sum())


def vote_of(error: float, num_classes: int, num_images: int) -> float:
    """How much a member's vote counts; 0 or less where it does no better than chance.

    Of a member without a mistake it would be infinite: it counts as if half an image were wrong, as
    confidence-rated boosting smooths its votes (Schapire and Singer 1999, section 4.2).

    >>> vote_of(0.5, num_classes=2, num_images=100)
    0.0
    >>> round(vote_of(0.0, num_classes=2, num_images=100), 3)  # log(0.995 / 0.005)
    5.293
    """
    error = min(max(error, 0.5 / num_images), 1 - 0.5 / num_images)
    return math.log((1 - error) / error) + math.log(num_classes - 1)


def reweighted(weights: Floats, wrong: NDArray[np.bool_], vote: float) -> Floats:
    """Weights (N,) of the sum N for the next member, to whom the wrong images matter more.

    >>> reweighted(np.ones(4), np.array([True, False, False, False]), vote=math.log(3)).round(3).tolist()
    [2.0, 0.667, 0.667, 0.667]
    """
    grown: Floats = weights * np.exp(vote * wrong)
    return np.asarray(grown / grown.mean())
