"""Above which probability a multi-label run says that an image has a label: one for each label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.tracking import RunRecord
from lightning_modules import ImageClassifier
from lightning_modules.metrics import tuned_metrics
from lightning_modules.outputs import Predictions
from lightning_modules.thresholds import DEFAULT, choose_thresholds


def label_thresholds(model: ImageClassifier) -> list[float] | None:
    """Those of the highest F1 on validation, by the predictions that are left on the model.

    0.5 where there is no validation; None where each image is of exactly one class.
    """
    if model.task.name != "multilabel":
        return None
    if "val" not in model.predictions:
        return [DEFAULT] * model.num_classes
    validation = model.predictions["val"]
    return [float(value) for value in choose_thresholds(validation.probabilities, validation.targets)]


def at_thresholds(predictions: Predictions, thresholds: Sequence[float], split: str) -> dict[str, float]:
    """Metrics of a split with each label predicted above its threshold, as `test/f1_macro_tuned`."""
    values = tuned_metrics(predictions.probabilities, predictions.targets, thresholds)
    return {f"{split}/{name}": value for name, value in values.items()}


def record_thresholds(folder: Path, thresholds: Sequence[float], class_names: Sequence[str]) -> None:
    """Writes them as a table."""
    (folder / "tables").mkdir(exist_ok=True)
    table = pd.DataFrame({"label": list(class_names), "threshold": list(thresholds)})
    table.to_csv(folder / "tables" / "thresholds.csv", index=False)


def recorded_thresholds(record: RunRecord) -> list[float]:
    """Reads them back."""
    table = pd.read_csv(record.download("tables/thresholds.csv"), dtype=str)  # pandas' own may lose a bit
    return [float(value) for value in table["threshold"]]
