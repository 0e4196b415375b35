"""Metric names and their direction."""

from __future__ import annotations

MINIMIZED = ("loss", "log_loss", "ece")


def is_minimized(metric: str) -> bool:
    """Whether less of this metric is better.

    >>> is_minimized("val/loss"), is_minimized("val/accuracy")
    (True, False)
    """
    return metric.rpartition("/")[2] in MINIMIZED


METRIC_NAMES = (
    "loss",
    "accuracy",
    "accuracy_top5",
    "exact_match",
    "balanced_accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "f1_weighted",
    "f1_micro",
    "auroc",
    "average_precision",
    "log_loss",
    "ece",
)
CLASS_METRICS = tuple(name for name in METRIC_NAMES if name not in ("exact_match", "f1_micro"))
LABEL_METRICS = tuple(name for name in METRIC_NAMES if name not in ("accuracy_top5", "balanced_accuracy"))
RANKING_METRICS = ("auroc", "average_precision")  # undefined where positives or negatives are missing
# Of labels, what depends on which are predicted, and so on the thresholds that are tuned for them.
DECISION_METRICS = (
    "accuracy",
    "exact_match",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "f1_weighted",
    "f1_micro",
)
TUNED_METRICS = tuple(f"{name}_tuned" for name in LABEL_METRICS if name in DECISION_METRICS)
TOP5_MIN_CLASSES = 11  # of ten classes, five guesses are half
