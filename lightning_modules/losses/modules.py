"""Loss modules with smoothing and class weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .functional import Cost


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
        logits = _of_each_class(logits)
        if targets.ndim == 2:
            logits = logits.float()  # shares are not to be rounded to 16 bits
        return F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing
        )


class ClassLoss(CrossEntropy):
    """As cross-entropy, with another cost of the probability that the softmax gives to a class.

    Args:
        label_smoothing: Share of each label spread evenly over all classes.
        cost: What an image costs if it is of a class, from that class's log probability. One of mixed
            classes costs what each of them would, by its share.
    """

    def __init__(self, label_smoothing: float, cost: Cost) -> None:
        super().__init__(label_smoothing)
        self.cost = cost

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = _of_each_class(logits).float()
        costs = self.cost.present(logits.log_softmax(1))  # (B, C), of each class if it were the image's
        if self.class_weights is not None:
            costs = costs * self.class_weights
        shares = _smoothed_shares(targets, logits.shape[1], self.label_smoothing)
        return (shares * costs).sum() / self.weight(targets)


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of each label, averaged over labels and images.

    Args:
        label_smoothing: Share of each label spread evenly over presence and absence.
        target_threshold: What mixing left counts as present in full above it, else as absent; None
            leaves it its share.
    """

    positive_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, target_threshold: float | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.target_threshold = target_threshold
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
        """What the sum over these targets is divided by, but for the number of labels."""
        return len(targets)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K), and for each label 0, 1 or what mixing gave between (B, K), to a scalar."""
        labels = self._presence(targets, logits.shape[1])
        if self.target_threshold is not None:
            labels = (labels > self.target_threshold).float()
        return F.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=self.positive_weights)

    def _presence(self, targets: Tensor, num_outputs: int) -> Tensor:
        """How much of each label, (B, K), is to be taken for present."""
        return targets * (1 - self.label_smoothing) + self.label_smoothing / 2


class OneHotBinaryCrossEntropy(BinaryCrossEntropy):
    """Binary cross-entropy of each class against all others (Wightman et al. 2021, section 3.2).

    Takes class indices (B,) or shares (B, C), and smooths them over all classes.
    """

    def weigh_classes(self, counts: Sequence[int], num_images: int | None = None) -> None:
        """Weighs each class's presence by the images of other classes for each of its own."""
        of_outputs = counts[1:] if len(counts) == 2 else counts
        super().weigh_classes(of_outputs, sum(counts))

    def _presence(self, targets: Tensor, num_outputs: int) -> Tensor:
        if num_outputs > 1:
            return _smoothed_shares(targets, num_outputs, self.label_smoothing)
        return _smoothed_shares(targets, 2, self.label_smoothing)[:, 1:]


class LabelLoss(BinaryCrossEntropy):
    """As binary cross-entropy, with other costs of the probability that the sigmoid gives to the truth.

    Args:
        label_smoothing: Share of each label spread evenly over presence and absence.
        cost: Of a label's log probability where it is present, and of its complement's where it is
            absent. One that is present in part costs both, by their shares.
    """

    def __init__(self, label_smoothing: float, cost: Cost) -> None:
        super().__init__(label_smoothing)
        self.cost = cost

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        present, absent = self.cost.present(F.logsigmoid(logits)), self.cost.absent(F.logsigmoid(-logits))
        if self.positive_weights is not None:
            present = present * self.positive_weights
        return torch.lerp(absent, present, self._presence(targets, logits.shape[1])).mean()


def _of_each_class(logits: Tensor) -> Tensor:
    """(B, K) to (B, C): one logit z stands for two classes, as the sigmoid of z is the softmax of (0, z)."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def _smoothed_shares(targets: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Class indices (B,) or shares (B, C) to shares (B, C), a part of each spread over all classes."""
    shares = targets if targets.ndim == 2 else F.one_hot(targets, num_classes).float()
    return shares * (1 - smoothing) + smoothing / num_classes


def weight_penalty(network: nn.Module, l1: float, l2: float) -> Tensor:
    """l1 * sum|w| + l2 * sum w^2 over trained matrices and kernels; biases and norms are spared."""
    weights = [each for each in network.parameters() if each.ndim > 1 and each.requires_grad]
    absolute = torch.stack([_whole(weight.abs().sum()) for weight in weights]).sum()
    squared = torch.stack([_whole(weight.square().sum()) for weight in weights]).sum()
    return l1 * absolute + l2 * squared


def _whole(value: Tensor) -> Tensor:
    """With the shares of all processes, where weights are shared out among them."""
    return value.full_tensor() if isinstance(value, DTensor) else value
