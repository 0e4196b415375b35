"""Per-label decision thresholds."""

from __future__ import annotations

from collections.abc import Sequence

from darkroom.lightning_modules.classifier import ImageClassifier
from darkroom.lightning_modules.metrics.collection import tuned_metrics
from darkroom.lightning_modules.metrics.epoch_outputs import Predictions
from darkroom.lightning_modules.metrics.thresholds import DEFAULT, choose_thresholds


def label_thresholds(model: ImageClassifier, validation: Predictions | None) -> list[float] | None:
    """The thresholds of the highest F1 on validation, one for each label.

    0.5 where there is no validation; None where each image is of exactly one class.
    """
    if model.task.name != "multilabel":
        return None
    if validation is None:
        return [DEFAULT] * model.num_classes
    return [float(value) for value in choose_thresholds(validation.probabilities, validation.targets)]


def at_thresholds(predictions: Predictions, thresholds: Sequence[float], split: str) -> dict[str, float]:
    """Metrics of a split with each label predicted above its threshold, as `test/f1_macro_tuned`."""
    values = tuned_metrics(predictions.probabilities, predictions.targets, thresholds)
    return {f"{split}/{name}": value for name, value in values.items()}
