"""Inference modules: one network or an ensemble, uint8 to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .task import to_log_odds, to_probabilities


class Predictor(nn.Module):
    """What a run leaves behind: uint8 images (N, C, H, W) to probabilities (N, num_classes).

    Args:
        preprocess: The data's evaluation transform, from uint8 to what the network eats.
        network: From there to logits.
        probabilities: From there to probabilities, as the task has them.
    """

    def __init__(
        self,
        preprocess: nn.Module,
        network: nn.Module,
        probabilities: Callable[[Tensor], Tensor] = to_probabilities,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.probabilities = probabilities

    def forward(self, images: Tensor) -> Tensor:
        return self.probabilities(self.network(self.preprocess(images)).float())


class WeightedMean(nn.Module):
    """The mean of the members' probabilities, each member counted as often as its weight says.

    Args:
        weights: M, of the sum 1.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def forward(self, probabilities: Tensor) -> Tensor:
        """(N, M, C) to (N, C)."""
        return (probabilities * self.weights[:, None]).sum(1)

    def log_odds(self, probabilities: Tensor, log_odds: Tensor | None) -> Tensor | None:
        """Log odds of the mean, float32 (N, C), from the members' (N, M, C); None where these are not known.

        The mean of float32 probabilities is rounded to 0 and 1 as they are.
        """
        if log_odds is None:
            return None
        exact, weights = log_odds.double(), self.weights.double().log()[:, None]
        present = (F.logsigmoid(exact) + weights).logsumexp(1)
        return (present - (F.logsigmoid(-exact) + weights).logsumexp(1)).float()


class WeightedVotes(WeightedMean):
    """The share of the votes that each class gets, one of each member, counted as its weight says."""

    def forward(self, probabilities: Tensor) -> Tensor:
        """(N, M, C) to (N, C)."""
        chosen = F.one_hot(probabilities.argmax(2), probabilities.shape[2])
        return super().forward(chosen.to(probabilities.dtype))

    def log_odds(self, probabilities: Tensor, log_odds: Tensor | None) -> Tensor | None:
        """None: votes are shares of few values, which rank images as they are."""
        return None


class Stacked(nn.Module):
    """A multinomial logistic regression on the logarithms of the members' probabilities.

    Args:
        coefficients: (C, M * C), of the first member's classes first.
        intercepts: (C,).
    """

    coefficients: Tensor
    intercepts: Tensor

    def __init__(self, coefficients: Tensor, intercepts: Tensor) -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients.float().contiguous())
        self.register_buffer("intercepts", intercepts.float().contiguous())

    def forward(self, probabilities: Tensor) -> Tensor:
        """(N, M, C) to (N, C)."""
        return self._logits(probabilities).softmax(1)

    def log_odds(self, probabilities: Tensor, log_odds: Tensor | None) -> Tensor | None:
        """Log odds of the regression, float32 (N, C), which knows the members' probabilities alone."""
        return to_log_odds(self._logits(probabilities))

    def _logits(self, probabilities: Tensor) -> Tensor:
        return F.linear(log_probabilities(probabilities), self.coefficients, self.intercepts)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """What a stacked ensemble learns from: (N, M, C) to (N, M * C), of zero one float32 epsilon's.

    Logarithms are logits up to a constant, so that the regression can give each member back, and
    sharpen or soften it.
    """
    return probabilities.clamp(min=torch.finfo(torch.float32).eps).log().flatten(1)


Combination = WeightedMean | Stacked


class Ensemble(nn.Module):
    """Uint8 images (N, C, H, W) to probabilities (N, num_classes), by several predictors.

    Args:
        members: M modules, each from images to probabilities.
        combination: From their probabilities (N, M, num_classes) to those of all.
    """

    def __init__(self, members: Sequence[nn.Module], combination: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.combination = combination

    def forward(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.combination(torch.stack([each(images) for each in self.members], 1))
        return probabilities
