"""Fits and applies temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from .array_types import Floats

Targets: TypeAlias = NDArray[Any]  # classes (N,), or labels (N, K) of 0 and 1
TEMPERATURES = (0.05, 20.0)  # among which one is sought; networks that have learned something need 0.3 to 5
EPSILON = float(np.finfo(np.float32).eps)  # probabilities are kept so far from 0 and 1, as `log_loss` does


def fit_temperatures(targets: Targets, probabilities: Floats) -> list[float | None]:
    """One temperature for classes; one for each of several labels."""
    if targets.ndim == 1:
        return [fit_temperature(targets, probabilities)]
    columns = zip(targets.T, probabilities.T, strict=True)
    return [fit_temperature(target.astype(np.int64), with_complement(column)) for target, column in columns]


def fit_temperature(targets: NDArray[np.int64], probabilities: Floats) -> float | None:
    """The temperature T of softmax(logits / T) with the least mean log loss (Guo et al. 2017, section 4.2).

    Logits are taken from probabilities: their logarithm differs from a network's logits by a constant for
    each image, which softmax takes out again.

    Args:
        targets: Classes, (N,), of images that the network was not trained on.
        probabilities: (N, C).

    Returns:
        T, above 1 for a network that is too sure; None where it is wrong about no image, as the loss then
        falls for ever with T.

    >>> sure = np.array([[0.9, 0.1]] * 4)  # and right three times of four: it should say 0.75
    >>> f"{fit_temperature(np.array([0, 0, 0, 1]), sure):.3f} {np.log(9) / np.log(3):.3f}"
    '2.000 2.000'
    """
    rows = np.arange(len(targets))
    if (probabilities[rows, targets] >= probabilities.max(axis=1)).all():
        return None
    logits = to_logits(probabilities)
    logits -= logits.max(axis=1, keepdims=True)  # once, and no exponential overflows at any temperature
    chosen = logits[rows, targets]  # (N,)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(np.log(np.exp(inverse * logits).sum(axis=1)) - inverse * chosen))

    # It has one minimum, being convex in 1 / T.
    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def scale(targets: Targets, probabilities: Floats, temperatures: Sequence[float | None]) -> Floats:
    """Probabilities (N, C) at a temperature, or at each label's; where that is None, as they are."""
    if targets.ndim == 1:
        (temperature,) = temperatures
        return probabilities if temperature is None else at_temperature(probabilities, temperature)
    columns = [
        column if temperature is None else at_temperature(with_complement(column), temperature)[:, 1]
        for column, temperature in zip(probabilities.T, temperatures, strict=True)
    ]
    return np.stack(columns, axis=1)


def at_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Returns the probabilities of classes (N, C) at a temperature.

    >>> at_temperature(np.array([[0.9, 0.1]]), 2.0).round(4).tolist()
    [[0.75, 0.25]]
    """
    scaled: Floats = softmax(to_logits(probabilities) / temperature, axis=1)
    return scaled


def to_logits(probabilities: Floats) -> Floats:
    """Logarithms (N, C). Of two classes one probability is stored, and the other known as its complement."""
    if probabilities.shape[1] == 2:
        known = with_complement(probabilities[:, 1].clip(EPSILON, 1 - EPSILON))
    else:
        known = probabilities.astype(np.float64).clip(np.finfo(np.float32).tiny)
    return np.asarray(np.log(known))


def with_complement(column: Floats) -> Floats:
    """The probability (N,) of being there, with that of not being there before it, (N, 2)."""
    present = column.astype(np.float64)
    return np.stack([1 - present, present], axis=1)
