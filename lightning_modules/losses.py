"""What training minimises: cross-entropy, smoothed and weighted, and penalties on the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.Module):
    """Cross-entropy of class indices or of mixed classes; binary where the network gives one logit.

    Args:
        label_smoothing: Share of each label spread evenly over all classes (Szegedy et al. 2016).
    """

    class_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        # Derived from the data of one run, so no part of what a checkpoint restores.
        self.register_buffer("class_weights", None, persistent=False)

    def weigh_classes(self, counts: Sequence[int], num_images: int | None = None) -> None:
        """Weighs each class by n / (C n_c), as scikit-learn's "balanced"; an empty one by 0."""
        images = torch.tensor(counts, dtype=torch.float32)
        weights = images.sum() / (len(counts) * images.clamp(min=1))
        self.class_weights = torch.where(images > 0, weights, torch.zeros_like(weights))

    def weight(self, targets: Tensor) -> Tensor | int:
        """What the sum over these targets is divided by: their number, or of indices their weights' sum."""
        if self.class_weights is None or targets.ndim == 2:  # as F.cross_entropy has it
            return len(targets)
        return self.class_weights[targets].sum()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K) with K = 1 for two classes, and class indices (B,) or shares (B, C), to a scalar."""
        if logits.shape[1] == 1:  # the sigmoid of z is the softmax of (0, z)
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)  # (B, 2)
        if targets.ndim == 2:
            logits = logits.float()  # shares are not to be rounded to 16 bits
        return F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing
        )


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of each label, averaged over labels and images.

    Args:
        label_smoothing: Share of each label spread evenly over presence and absence.
    """

    positive_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("positive_weights", None, persistent=False)

    def weigh_classes(self, counts: Sequence[int], num_images: int | None = None) -> None:
        """Weighs each label's presence by its negatives for each positive.

        As torch's documentation of `pos_weight` suggests, and in the ratio of scikit-learn's "balanced".
        A label that no image has, or all have, keeps a weight of 1.
        """
        assert num_images is not None  # the counts of labels do not add up to it
        positives = torch.tensor(counts, dtype=torch.float32)
        negatives = num_images - positives
        both = (positives > 0) & (negatives > 0)
        self.positive_weights = torch.where(both, negatives / positives.clamp(min=1), torch.ones(len(counts)))

    def weight(self, targets: Tensor) -> int:
        """What the sum over these targets (B, K) is divided by, but for K."""
        return len(targets)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K), and for each label 0, 1 or what mixing gave between (B, K), to a scalar."""
        smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits.float(), smoothed, pos_weight=self.positive_weights)


def weight_penalty(network: nn.Module, l1: float, l2: float) -> Tensor | float:
    """l1 * sum|w| + l2 * sum w^2 over trained matrices and kernels; biases and norms are spared."""
    if l1 == 0 and l2 == 0:
        return 0.0
    weights = [each for each in network.parameters() if each.ndim > 1 and each.requires_grad]
    absolute = torch.stack([weight.abs().sum() for weight in weights]).sum()
    squared = torch.stack([weight.square().sum() for weight in weights]).sum()
    return l1 * absolute + l2 * squared


def to_probabilities(logits: Tensor) -> Tensor:
    """Logits (B, K) to class probabilities (B, C); one logit gives two classes."""
    if logits.shape[1] > 1:
        return logits.softmax(1)
    positive = logits.sigmoid()  # (B, 1)
    return torch.cat([1 - positive, positive], dim=1)
