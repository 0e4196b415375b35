"""Soft voting, greedy selection, stacking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from darkroom.lightning_modules.predictor import Combination, Stacked, WeightedMean, log_probabilities

from ...errors import RequestError
from ...evaluation.array_types import Floats
from ...evaluation.stored_predictions import StoredPredictions
from .members import EnsembleMember, goodness, probabilities_of

ROUNDS = 50  # of greedy selection; a member's weight is known to a fiftieth then


def fitting_predictions(members: Sequence[EnsembleMember]) -> tuple[Tensor, StoredPredictions]:
    """What a combination is fitted on: probabilities (N, M, C), and the first member's outcome.

    The validation images, which chose each member's epoch; of cross-validations all training images, each
    judged by a network that had not trained on it (Wolpert 1992).
    """
    return probabilities_of(members, "val"), members[0].outcomes["val"]


def soft_voting(members: Sequence[EnsembleMember], metric: str) -> WeightedMean:
    """The mean of all, which fits nothing."""
    return WeightedMean([1 / len(members)] * len(members))


def greedy(members: Sequence[EnsembleMember], metric: str) -> WeightedMean:
    """Greedy selection by the metric on validation (Caruana et al. 2004)."""
    probabilities, outcome = fitting_predictions(members)

    def judge(mean: Floats) -> tuple[float, float]:
        return goodness(replace(outcome, probabilities=mean.astype(np.float32), log_odds=None), metric)

    return WeightedMean(greedy_weights(probabilities.double().numpy(), judge))


def greedy_weights(
    probabilities: Floats,
    judge: Callable[[Floats], tuple[float, ...]],
    rounds: int = ROUNDS,
) -> list[float]:
    """Adds, with replacement, the member that helps the mean most; keeps the best of all these ensembles.

    Args:
        probabilities: (N, M, C).
        judge: Of mean probabilities (N, C), what is larger for what is better.
        rounds: How often one is added.

    Returns:
        M weights of the sum 1.

    >>> said = np.array([[[1.0], [0.0]]])  # of one image, by two members
    >>> greedy_weights(said, lambda mean: (-abs(mean.item() - 0.75),))
    [0.75, 0.25]
    """
    counts = np.zeros(probabilities.shape[1], dtype=np.int64)
    total = np.zeros_like(probabilities[:, 0])
    best: tuple[tuple[float, ...], Floats] | None = None
    for size in range(1, rounds + 1):
        values = [judge((total + each) / size) for each in probabilities.swapaxes(0, 1)]
        added = max(range(len(counts)), key=values.__getitem__)
        counts[added] += 1
        total += probabilities[:, added]
        if best is None or values[added] > best[0]:
            best = values[added], counts / size
    assert best is not None
    return [float(weight) for weight in best[1]]


def stacking(members: Sequence[EnsembleMember], metric: str) -> Stacked:
    """Multinomial logistic regression on what the members say (Wolpert 1992; Ting and Witten 1999).

    Its penalty is scikit-learn's own; its tolerance is not, with which the order of the members would
    change what is fitted.

    Raises:
        RequestError: Images may have several labels, or validation lacks a class.
    """
    probabilities, outcome = fitting_predictions(members)
    num_classes = probabilities.shape[2]
    if outcome.targets.ndim == 2:
        raise RequestError("stacking learns one class of several, not labels: take soft_voting or greedy")
    present = np.unique(outcome.targets)
    if len(present) < num_classes:
        absent = next(name for label, name in enumerate(members[0].class_names) if label not in present)
        raise RequestError(
            f"stacking learns from validation images, of which class {absent} has none: take soft_voting or "
            "greedy, runs with a larger data.val_fraction, or cross-validations (darkroom train --folds)"
        )
    regression = LogisticRegression(tol=1e-8, max_iter=5000)
    regression.fit(log_probabilities(probabilities.double()).numpy(), outcome.targets)
    coefficients, intercepts = map(torch.from_numpy, (regression.coef_, regression.intercept_))
    if len(coefficients) == 1:  # of two classes the first one's logit is zero
        coefficients, intercepts = (
            torch.cat([torch.zeros_like(each), each]) for each in (coefficients, intercepts)
        )
    return Stacked(coefficients, intercepts)


COMBINATIONS: dict[str, Callable[[Sequence[EnsembleMember], str], Combination]] = {
    "soft_voting": soft_voting,
    "greedy": greedy,
    "stacking": stacking,
}
