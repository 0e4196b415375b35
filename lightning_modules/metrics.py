"""What is measured: one collection of metrics over class probabilities, for every stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.utilities.data import dim_zero_cat

METRIC_NAMES = (
    "loss",
    "accuracy",
    "accuracy_top5",
    "balanced_accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "f1_weighted",
    "auroc",
    "average_precision",
    "log_loss",
    "ece",
)
TOP5_MIN_CLASSES = 11  # of ten classes, five guesses are half


class LogLoss(Metric):
    """Mean negative log of the probability given to the true class, as scikit-learn's `log_loss`.

    Probabilities are kept at least one float32 epsilon away from 0, as scikit-learn keeps them.
    """

    full_state_update = False
    is_differentiable = True
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Adds (N, C) probabilities and (N,) class indices."""
        chosen = probabilities.gather(1, targets[:, None]).squeeze(1)
        epsilon = torch.finfo(probabilities.dtype).eps
        self.total -= chosen.clamp(epsilon, 1 - epsilon).double().log().sum()
        self.count += len(targets)

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


def rank_scores(scores: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Area under the ROC curve and average precision, exact, ties included.

    Both follow from one sort. torchmetrics' exact versions, which build whole curves, took some
    thirty times as long on 54,000 x 10 probabilities, too much for every epoch.

    Args:
        scores: (N,), higher for positives.
        positives: bool (N,).

    Returns:
        Two scalars, NaN where there are no positives or no negatives. Average precision sums
        (R_n - R_{n-1}) P_n over the distinct thresholds, without interpolation.

    >>> area, precision = rank_scores(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([True, False, True]))
    >>> round(area.item(), 4), round(precision.item(), 4)
    (0.5, 0.8333)
    """
    ordered, order = scores.sort(descending=True)
    hits = positives[order].cumsum(0)  # positives at or above each place
    last_of_tie = torch.ones_like(positives)
    last_of_tie[:-1] = ordered[:-1] != ordered[1:]
    ends = last_of_tie.nonzero().flatten()
    true_positives = hits[ends].double()  # at each distinct threshold
    false_positives = ends + 1 - true_positives
    if len(positives) == 0 or true_positives[-1] == 0 or false_positives[-1] == 0:
        nothing = torch.tensor(torch.nan, device=scores.device)
        return nothing, nothing
    recall = true_positives / true_positives[-1]
    fallout = false_positives / false_positives[-1]
    start = torch.zeros(1, dtype=torch.float64, device=scores.device)
    area = torch.trapezoid(torch.cat([start, recall]), torch.cat([start, fallout]))
    precision = (torch.diff(recall, prepend=start) * true_positives / (ends + 1)).sum()
    return area.float(), precision.float()


class BalancedAccuracy(MulticlassRecall):
    """Mean recall over the classes that targets have, as scikit-learn's `balanced_accuracy_score`.

    torchmetrics' macro accuracy counts a class that is only predicted as a recall of 0.
    """

    def compute(self) -> Tensor:
        true_positives, _, _, false_negatives = self._final_state()
        support = true_positives + false_negatives  # (C,)
        present = support > 0
        return (true_positives[present] / support[present]).mean()


class CalibrationError(MulticlassCalibrationError):
    """Expected calibration error of the largest probability (Guo et al. 2017, equation 3).

    torchmetrics puts probabilities of exactly 1, of which a trained network gives many, into one bin
    more than asked for.
    """

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Adds (N, C) probabilities and (N,) class indices."""
        super().update(probabilities.clamp(max=1 - torch.finfo(probabilities.dtype).eps), targets)


class Ranking(Metric):
    """`auroc` and `average_precision`: of class 1 where there are two, else the mean over one-vs-rest.

    Classes without a positive or a negative sample are left out of the mean.
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes = [1] if num_classes == 2 else list(range(num_classes))
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Keeps (N, C) probabilities and (N,) class indices."""
        self.probabilities.append(probabilities)
        self.targets.append(targets)

    def compute(self) -> dict[str, Tensor]:
        probabilities = dim_zero_cat(self.probabilities).T.contiguous()  # (C, N)
        targets = dim_zero_cat(self.targets)
        scores = [rank_scores(probabilities[label], targets == label) for label in self.classes]
        areas, precisions = (torch.stack(values) for values in zip(*scores, strict=True))
        return {"auroc": areas.nanmean(), "average_precision": precisions.nanmean()}


def build_metrics(num_classes: int) -> MetricCollection:
    """The collection, taking probabilities (N, C) and class indices (N,).

    A binary task is one of two classes: accuracy, precision, recall, F1 and calibration are those of
    both, `auroc` and `average_precision` those of class 1. With more classes these two are averaged,
    each class against the rest.
    """
    # The module has gathered what all processes saw: to add up their counts would double them.
    alone: dict[str, Any] = {"sync_on_compute": False}
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro", **alone),
        "balanced_accuracy": BalancedAccuracy(num_classes, average="macro", **alone),
        "precision_macro": MulticlassPrecision(num_classes, average="macro", **alone),
        "recall_macro": MulticlassRecall(num_classes, average="macro", **alone),
        "f1_macro": MulticlassF1Score(num_classes, average="macro", **alone),
        "f1_weighted": MulticlassF1Score(num_classes, average="weighted", **alone),
        "log_loss": LogLoss(**alone),
        "ece": CalibrationError(num_classes, n_bins=15, norm="l1", **alone),
        "ranking": Ranking(num_classes, **alone),
    }
    if num_classes >= TOP5_MIN_CLASSES:
        metrics["accuracy_top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, **alone)
    return MetricCollection(metrics)
