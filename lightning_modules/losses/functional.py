"""Focal, asymmetric and Poly-1 losses as functions.

A soft target costs what hard ones would, by their shares, as in cross-entropy. timm's asymmetric loss and
torchvision's focal one, which agree on hard targets, mix probabilities instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

SMALLEST = 1e-12  # of a base of powers: that of 0 has no finite gradient below the first


class Cost(Protocol):
    """From log probabilities of the truth, of any shape, to costs of that shape."""

    def present(self, log_probabilities: Tensor) -> Tensor:
        """Where the truth is a class, or the presence of a label."""
        ...

    def absent(self, log_probabilities: Tensor) -> Tensor:
        """Where the truth is the absence of a label."""
        ...


@dataclass(frozen=True)
class Focal:
    """Focal loss (Lin et al. 2017, equation 4); what their alpha does, balanced class weights do.

    Args:
        gamma: How much less an image counts the surer the network is of it; 0 is cross-entropy.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_number("gamma of focal", self.gamma, 0, advice="2 is customary")

    def present(self, log_probabilities: Tensor) -> Tensor:
        return _focused(log_probabilities, self.gamma)

    absent = present


@dataclass(frozen=True)
class Asymmetric:
    """Asymmetric loss of labels (Ridnik et al. 2021, equation 7).

    Args:
        gamma_positive: How much less a label that is present counts the surer the network is of it.
        gamma_negative: The same of one that is absent.
        margin: Absent labels of a lower probability than this cost nothing, in [0, 1).
    """

    gamma_positive: float = 1.0
    gamma_negative: float = 4.0
    margin: float = 0.05

    def __post_init__(self) -> None:
        check_number("gamma_positive of asymmetric", self.gamma_positive, 0, advice="0 or 1 is customary")
        check_number("gamma_negative of asymmetric", self.gamma_negative, 0, advice="4 is customary")
        check_number("margin of asymmetric", self.margin, 0, 1, advice="0.05 is customary")

    def present(self, log_probabilities: Tensor) -> Tensor:
        return _focused(log_probabilities, self.gamma_positive)

    def absent(self, log_probabilities: Tensor) -> Tensor:
        if self.margin > 0:
            log_probabilities = (log_probabilities.exp() + self.margin).clamp(max=1).log()
        return _focused(log_probabilities, self.gamma_negative)


@dataclass(frozen=True)
class Poly1:
    """Poly-1: cross-entropy with another coefficient of its first polynomial (Leng et al. 2022, equation 6).

    Args:
        epsilon: Added to the coefficient, at least -1; 0 is cross-entropy, 2 their choice on ImageNet.
    """

    epsilon: float = 2.0

    def __post_init__(self) -> None:
        check_number("epsilon of poly1", self.epsilon, -1, advice="2 is customary on ImageNet")

    def present(self, log_probabilities: Tensor) -> Tensor:
        return -log_probabilities - self.epsilon * log_probabilities.expm1()

    absent = present


def check_number(key: str, value: float, least: float, below: float = math.inf, *, advice: str) -> None:
    """Refuses an option of a loss.

    Raises:
        ValueError: The value is no number, or lies outside [least, below).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < below:
        expected = f"be at least {least}" if below == math.inf else f"lie in [{least}, {below})"
        raise ValueError(f"model.loss_options: {key} must {expected}, got {value}; {advice}")


def _focused(log_probabilities: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p."""
    if gamma == 0:
        return -log_probabilities
    missing = (-log_probabilities.expm1()).clamp(min=SMALLEST)
    return -missing.pow(gamma) * log_probabilities
