"""What is asked of each image, and what follows from it: outputs, probabilities, metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from .metrics.collection import build_label_metrics, build_metrics
from .metrics.names import CLASS_METRICS, LABEL_METRICS, TOP5_MIN_CLASSES

TaskName = Literal["binary", "multiclass", "multilabel"]


@dataclass(frozen=True)
class Task(ABC):
    """One kind of classification of images into C classes or labels.

    Attributes:
        name: Of the kind.
        num_classes: C.
        headline: The metric that one looks at first, beside the loss.
    """

    name: TaskName
    num_classes: int
    headline: ClassVar[str]

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """What an epoch reports."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """K, the number of logits."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """What is measured, from probabilities (N, C) and targets."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to probabilities (B, C)."""

    @abstractmethod
    def log_odds(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to the log odds of each class or label, float32 (B, C), which rank images exactly."""

    @abstractmethod
    def soft(self, targets: Tensor) -> Tensor:
        """Targets as a batch has them to float32 (B, C), which can be mixed."""


class OneOfSeveral(Task):
    """Binary or multiclass: each image is of exactly one class; targets are class indices (N,)."""

    headline = "accuracy"

    @property
    def metric_names(self) -> tuple[str, ...]:
        few = self.num_classes < TOP5_MIN_CLASSES
        return tuple(name for name in CLASS_METRICS if not (few and name == "accuracy_top5"))

    @property
    def num_outputs(self) -> int:
        return 1 if self.name == "binary" else self.num_classes

    def metrics(self) -> MetricCollection:
        return build_metrics(self.num_classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        return to_probabilities(logits)

    def log_odds(self, logits: Tensor) -> Tensor:
        return to_log_odds(logits)

    def soft(self, targets: Tensor) -> Tensor:
        return F.one_hot(targets, self.num_classes).float()


class AnyOfSeveral(Task):
    """Multi-label: each image has any of the labels, or none; targets are 0 or 1, float (N, K)."""

    headline = "average_precision"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return LABEL_METRICS

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    def metrics(self) -> MetricCollection:
        return build_label_metrics(self.num_classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def log_odds(self, logits: Tensor) -> Tensor:
        return logits.float()

    def soft(self, targets: Tensor) -> Tensor:
        return targets.float()


def build_task(num_classes: int, name: TaskName | None = None) -> Task:
    """The task of that name; without one, binary for two classes and multiclass for more.

    Raises:
        ValueError: There are too few or too many classes for it.
    """
    if num_classes < 2:
        raise ValueError(f"a classifier needs at least two classes, the data has {num_classes}")
    if name == "multilabel":
        return AnyOfSeveral(name, num_classes)
    if name == "binary" and num_classes > 2:
        raise ValueError(f"a binary task has two classes, the data has {num_classes}: it is multiclass")
    return OneOfSeveral(name or ("binary" if num_classes == 2 else "multiclass"), num_classes)


def to_log_odds(logits: Tensor) -> Tensor:
    """Logits (B, K) to the log odds of each class against the others, float32 (B, C).

    They rank images as exact probabilities would. A float32 softmax is exactly 1 from logits of about 17 on,
    and many images that differ share a rank.

    >>> to_log_odds(torch.tensor([[40.0, 0.0]])).tolist()
    [[40.0, -40.0]]
    """
    if logits.shape[1] == 1:
        return torch.cat([-logits, logits], dim=1).float()
    exact = logits.double()
    largest, chosen = exact.max(1, keepdim=True)  # (B, 1)
    powers = (exact - largest).exp()  # (B, C), of the largest 1
    others = largest + (powers.sum(1, keepdim=True) - powers).log()  # wrong for the largest alone
    rest = exact.scatter(1, chosen, -torch.inf).logsumexp(1, keepdim=True)
    return (exact - others.scatter(1, chosen, rest)).float()


def to_probabilities(logits: Tensor) -> Tensor:
    """Logits (B, K) to class probabilities (B, C); one logit gives two classes."""
    if logits.shape[1] > 1:
        return logits.softmax(1)
    positive = logits.sigmoid()  # (B, 1)
    return torch.cat([1 - positive, positive], dim=1)
