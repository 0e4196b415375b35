"""Predictions, thresholds and temperatures as artifacts: write and read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import RequestError
from ..evaluation.predictions import (
    confusion_counts,
    label_confusion_counts,
    label_confusion_table,
    per_class_table,
    per_label_table,
    split_frame,
)
from ..evaluation.stored_predictions import StoredPredictions
from .run import RunRecord

if TYPE_CHECKING:
    from darkroom.datamodules.base import ImageDataModule
    from darkroom.lightning_modules.metrics.epoch_outputs import Predictions


def record_temperatures(
    folder: Path, temperatures: Sequence[float | None], class_names: Sequence[str]
) -> None:
    """Writes those of labels as a table; a single one is a metric."""
    if len(temperatures) == len(class_names):
        (folder / "tables").mkdir(exist_ok=True)
        table = pd.DataFrame({"label": list(class_names), "temperature": temperatures})
        table.to_csv(folder / "tables" / "temperatures.csv", index=False)


def read_outcome(run: RunRecord, split: str) -> StoredPredictions:
    """What a run said of its `val` or `test` images, wherever it is recorded.

    Raises:
        RequestError: It recorded no predictions of them, or some that are no numbers.
    """
    frame = run.predictions(split)
    targets: Any = frame["target"] if "target" in frame else frame.filter(regex=r"^target_\d+$")
    # A fold recorded before groups were leaves its images without one.
    grouped = "group" in frame and bool(frame["group"].notna().all())
    column = run.params.get("data.group_column", "None")
    probabilities = frame.filter(regex=r"^prob_\d+$").to_numpy(dtype=np.float32, copy=True)
    bad = int((~np.isfinite(probabilities)).any(1).sum())
    if bad:
        raise RequestError(
            f"run {run.run_id[:8]} ({run.name}) recorded predictions of {bad:,} of {len(frame):,} {split} "
            "images that are NaN: its network had died, and its metrics mean nothing. Leave it out"
        )
    return StoredPredictions(
        ids=frame["id"].to_numpy(dtype=np.str_),
        targets=targets.to_numpy(dtype=np.int64, copy=True),
        probabilities=probabilities,
        log_odds=_read_log_odds(frame, probabilities.shape[1]),
        groups=frame["group"].to_numpy(dtype=np.str_) if grouped else None,
        grouped_by=None if column == "None" else column,
    )


def _read_log_odds(frame: pd.DataFrame, num_classes: int) -> NDArray[np.float32] | None:
    """Reads the log odds (N, C); None where a run, or one of its folds, recorded none."""
    columns = frame.filter(regex=r"^log_odds_\d+$")
    if columns.empty or bool(columns.isna().to_numpy().any()):
        return None
    found = columns.to_numpy(dtype=np.float32, copy=True)
    return found if found.shape[1] == num_classes else np.concatenate([-found, found], axis=1)


def record_predictions(
    folder: Path,
    split: str,
    predictions: Predictions,
    data: ImageDataModule,
    thresholds: Sequence[float] | None = None,
) -> None:
    """Writes predictions, and the tables that follow from them, of one split; of labels at thresholds."""
    probabilities = predictions.probabilities.cpu().numpy()
    targets = predictions.targets.cpu().numpy()
    names = data.class_names
    (folder / "predictions").mkdir(exist_ok=True)
    split_frame(split, predictions, data).to_parquet(folder / "predictions" / f"{split}.parquet")
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    if thresholds is not None:
        label_counts = label_confusion_counts(targets, probabilities > thresholds)
        label_confusion_table(label_counts, names).to_csv(
            tables / f"{split}_confusion_matrices.csv", index=False
        )
        table = per_label_table(targets, probabilities, thresholds, names, predictions.ranking.cpu().numpy())
        table.to_csv(tables / f"{split}_per_label.csv", index=False)
        return
    counts = confusion_counts(targets, probabilities.argmax(1), len(names))
    pd.DataFrame(counts, index=pd.Index(names, name="true"), columns=list(names)).to_csv(
        tables / f"{split}_confusion_matrix.csv"
    )
    per_class_table(counts, names).to_csv(tables / f"{split}_per_class.csv", index=False)


def record_thresholds(folder: Path, thresholds: Sequence[float], class_names: Sequence[str]) -> None:
    """Writes them as a table."""
    (folder / "tables").mkdir(exist_ok=True)
    table = pd.DataFrame({"label": list(class_names), "threshold": list(thresholds)})
    table.to_csv(folder / "tables" / "thresholds.csv", index=False)


def recorded_thresholds(record: RunRecord) -> list[float]:
    """Reads them back."""
    table = pd.read_csv(record.download("tables/thresholds.csv"), dtype=str)  # pandas' own may lose a bit
    return [float(value) for value in table["threshold"]]
