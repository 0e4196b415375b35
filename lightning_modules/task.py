"""What is asked of each image, and what follows from it: outputs, probabilities, metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_modules.losses import to_log_odds, to_probabilities
from lightning_modules.metrics import (
    CLASS_METRICS,
    LABEL_METRICS,
    TOP5_MIN_CLASSES,
    build_label_metrics,
    build_metrics,
)

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
