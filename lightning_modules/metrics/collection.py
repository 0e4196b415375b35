"""Metric collections over probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAccuracy,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)
from torchmetrics.utilities.data import dim_zero_cat

from .names import TOP5_MIN_CLASSES


class LogLoss(Metric):
    """Mean negative log of the probability given to the true class, as scikit-learn's `log_loss`.

    Of labels it is the mean over images and labels, of each label's presence or absence.
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
        """Adds (N, C) probabilities, and (N,) class indices or (N, C) labels."""
        if targets.ndim == 2:
            chosen = torch.where(targets > 0.5, probabilities, 1 - probabilities)
        else:
            chosen = probabilities.gather(1, targets[:, None])
        epsilon = torch.finfo(probabilities.dtype).eps
        self.total -= chosen.clamp(epsilon, 1 - epsilon).double().log().sum()
        self.count += chosen.numel()

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


def binned_calibration_error(confidences: Tensor, hits: Tensor, n_bins: int) -> Tensor:
    """Mean over images of the gap between confidence and share of hits, by bins of equal width.

    torchmetrics adds up in float32: of a million images its bins lose three quarters of their sums.

    Args:
        confidences: (N,), in [0, 1]; 1 belongs to the last bin.
        hits: Whether each came true, (N,), bool or 0 and 1.
        n_bins: Bins of [0, 1].

    >>> binned_calibration_error(torch.tensor([0.75, 0.75, 1.0]), torch.tensor([1, 0, 1]), 2)
    tensor(0.1667)
    """
    edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64, device=confidences.device)
    bins = torch.bucketize(confidences.double(), edges[1:-1], right=True)
    gaps = torch.zeros(n_bins, dtype=torch.float64, device=confidences.device)
    gaps.scatter_add_(0, bins, hits.double() - confidences.double())
    return (gaps.abs().sum() / len(confidences)).float()


class CalibrationError(Metric):
    """Expected calibration error of the largest probability (Guo et al. 2017, equation 3)."""

    full_state_update = False
    confidences: list[Tensor]
    hits: list[Tensor]

    def __init__(self, n_bins: int = 15, **options: Any) -> None:
        super().__init__(**options)
        self.n_bins = n_bins
        self.add_state("confidences", [], dist_reduce_fx="cat")
        self.add_state("hits", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Adds (N, C) probabilities and (N,) class indices."""
        confidences, chosen = probabilities.max(1)
        self.confidences.append(confidences)
        self.hits.append(chosen == targets)

    def compute(self) -> Tensor:
        return binned_calibration_error(dim_zero_cat(self.confidences), dim_zero_cat(self.hits), self.n_bins)


class LabelCalibrationError(Metric):
    """Expected calibration error of each label's probability, averaged over labels.

    Bins hold probabilities of the label, not of what is predicted ("classwise-ECE", Kull et al. 2019).
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self, n_bins: int = 15, **options: Any) -> None:
        super().__init__(**options)
        self.n_bins = n_bins
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Keeps (N, K) probabilities and (N, K) labels."""
        self.probabilities.append(probabilities)
        self.targets.append(targets)

    def compute(self) -> Tensor:
        probabilities = dim_zero_cat(self.probabilities).T.contiguous()  # (K, N)
        columns = zip(probabilities, dim_zero_cat(self.targets).T.int(), strict=True)
        return torch.stack(
            [binned_calibration_error(*column, n_bins=self.n_bins) for column in columns]
        ).mean()


class Ranking(Metric):
    """`auroc` and `average_precision`: means over one-vs-rest, or over labels.

    Classes without a positive or a negative sample are left out of the mean.

    Args:
        classes: Which of them are averaged.
    """

    full_state_update = False
    ranking: list[Tensor]
    targets: list[Tensor]

    def __init__(self, classes: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.classes = classes
        self.add_state("ranking", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor, ranking: Tensor | None = None) -> None:
        """Keeps what ranks, (N, C), by default the probabilities; and (N,) class indices or (N, C) labels."""
        self.ranking.append(probabilities if ranking is None else ranking)
        self.targets.append(targets)

    def compute(self) -> dict[str, Tensor]:
        ranking = dim_zero_cat(self.ranking).T.contiguous()  # (C, N)
        targets = dim_zero_cat(self.targets)
        scores = [
            rank_scores(ranking[label], targets[:, label] > 0.5 if targets.ndim == 2 else targets == label)
            for label in self.classes
        ]
        areas, precisions = (torch.stack(values) for values in zip(*scores, strict=True))
        return {"auroc": areas.nanmean(), "average_precision": precisions.nanmean()}


class TopAccuracy(Metric):
    """Share of images whose class is among the k that rank highest for them.

    Args:
        k: How many classes count.
    """

    full_state_update = False
    hits: Tensor
    count: Tensor

    def __init__(self, k: int, **options: Any) -> None:
        super().__init__(**options)
        self.k = k
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor, ranking: Tensor | None = None) -> None:
        """Counts (N,) class indices among the k highest of what ranks, (N, C), by default probabilities."""
        ranked = probabilities if ranking is None else ranking
        self.hits += (ranked.topk(self.k, dim=1).indices == targets[:, None]).sum()
        self.count += len(targets)

    def compute(self) -> Tensor:
        return (self.hits.double() / self.count).float()


# The module has gathered what all processes saw: to add up their counts would double them.
ALONE: dict[str, Any] = {"sync_on_compute": False}


def build_metrics(num_classes: int) -> MetricCollection:
    """The collection, taking probabilities (N, C), class indices (N,) and, if given, what ranks (N, C).

    A binary task is one of two classes: accuracy, precision, recall, F1 and calibration are those of
    both, `auroc` and `average_precision` those of class 1. With more classes these two are averaged,
    each class against the rest.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro", **ALONE),
        "balanced_accuracy": BalancedAccuracy(num_classes, average="macro", **ALONE),
        "precision_macro": MulticlassPrecision(num_classes, average="macro", **ALONE),
        "recall_macro": MulticlassRecall(num_classes, average="macro", **ALONE),
        "f1_macro": MulticlassF1Score(num_classes, average="macro", **ALONE),
        "f1_weighted": MulticlassF1Score(num_classes, average="weighted", **ALONE),
        "log_loss": LogLoss(**ALONE),
        "ece": CalibrationError(n_bins=15, **ALONE),
        "ranking": Ranking([1] if num_classes == 2 else range(num_classes), **ALONE),
    }
    if num_classes >= TOP5_MIN_CLASSES:
        metrics["accuracy_top5"] = TopAccuracy(5, **ALONE)
    return MetricCollection(metrics)


def build_label_metrics(num_labels: int) -> MetricCollection:
    """The multi-label collection, taking probabilities (N, K) and labels (N, K) of 0 or 1.

    `accuracy` is that of single labels (1 - Hamming loss), `exact_match` that of whole images (what
    scikit-learn calls accuracy), `average_precision` the mean over labels that is known as mAP;
    `log_loss` and `ece` are means over labels too. A label is predicted above a probability of 0.5;
    one that is neither there nor predicted counts as a precision, recall and F1 of 0.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        **_decision_metrics(num_labels),
        "log_loss": LogLoss(**ALONE),
        "ece": LabelCalibrationError(n_bins=15, **ALONE),
        "ranking": Ranking(range(num_labels), **ALONE),
    }
    return MetricCollection(metrics)


def _decision_metrics(num_labels: int) -> dict[str, Metric]:
    """What depends on which labels are predicted, and not on their probabilities beside that."""
    return {
        "accuracy": MultilabelAccuracy(num_labels, average="micro", **ALONE),
        "exact_match": MultilabelExactMatch(num_labels, **ALONE),
        "precision_macro": MultilabelPrecision(num_labels, average="macro", **ALONE),
        "recall_macro": MultilabelRecall(num_labels, average="macro", **ALONE),
        "f1_macro": MultilabelF1Score(num_labels, average="macro", **ALONE),
        "f1_weighted": MultilabelF1Score(num_labels, average="weighted", **ALONE),
        "f1_micro": MultilabelF1Score(num_labels, average="micro", **ALONE),
    }


def tuned_metrics(probabilities: Tensor, targets: Tensor, thresholds: Sequence[float]) -> dict[str, float]:
    """`f1_macro_tuned` and its like: of labels predicted above thresholds of their own.

    Args:
        probabilities: (N, K).
        targets: 0 or 1, (N, K).
        thresholds: (K,), chosen on other images; see `choose_thresholds`.
    """
    # In double precision, where thresholds between neighbouring float32 are not rounded to one of them.
    predicted = (probabilities.cpu().double() > torch.tensor(thresholds, dtype=torch.float64)).float()
    metrics: dict[str, Metric | MetricCollection] = {**_decision_metrics(len(thresholds))}
    values = MetricCollection(metrics)(predicted, targets.cpu())
    return {f"{name}_tuned": float(value) for name, value in values.items()}
