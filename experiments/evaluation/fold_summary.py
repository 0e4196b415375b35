"""Mean and interval of metrics over folds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from .significance import Interval, folds_interval


class JudgedFold(Protocol):
    """A fold whose network was trained and judged."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The chosen checkpoint's metrics: `best/...` on the fold's images and, where tested, `test/...`."""

    @property
    def validated(self) -> int:
        """Images judged for validation."""

    @property
    def trained(self) -> int:
        """Images trained on."""


@dataclass(frozen=True)
class FoldSummary:
    """One metric over folds.

    Attributes:
        mean: Of the folds.
        deviation: Their standard deviation; NaN of a single fold.
        interval: 95 % interval of the mean, corrected for the training images that folds share;
            infinite of a single fold, and of folds that tie.
    """

    mean: float
    deviation: float
    interval: Interval


def summarize(folds: Sequence[JudgedFold]) -> dict[str, FoldSummary]:
    """Each metric of the chosen checkpoints, `best/...` and `test/...`, over the folds."""
    val_per_train = float(np.mean([fold.validated / fold.trained for fold in folds]))
    names = [name for name in folds[0].metrics if name.startswith(("best/", "test/"))]
    summaries = {}
    for name in sorted(set(names) - {"best/epoch"}):
        values = [fold.metrics[name] for fold in folds]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        interval = folds_interval(values, val_per_train)
        summaries[name] = FoldSummary(statistics.fmean(values), deviation, interval)
    return summaries


def summary_metrics(summaries: Mapping[str, FoldSummary]) -> dict[str, float]:
    """The summaries as a run records them, without what a single fold, or folds that tie, leave open.

    >>> list(summary_metrics({"best/loss": FoldSummary(0.5, 0.1, Interval(0.3, 0.7))}))
    ['mean/best/loss', 'std/best/loss', 'low/best/loss', 'high/best/loss']
    >>> summary_metrics({"best/loss": FoldSummary(0.5, math.nan, Interval(-math.inf, math.inf))})
    {'mean/best/loss': 0.5}
    """
    metrics: dict[str, float] = {}
    for name, each in summaries.items():
        low, high = each.interval
        told = {"mean": each.mean, "std": each.deviation, "low": low, "high": high}
        metrics |= {f"{kind}/{name}": value for kind, value in told.items() if math.isfinite(value)}
    return metrics


def out_of_fold(predictions: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What was said of each image by the one network that had not trained on it, by id.

    Args:
        predictions: Of each fold's own images, in the columns of the prediction store.
    """
    frame = pd.concat(predictions, ignore_index=True)
    assert frame["id"].is_unique, "an image is in two folds"
    return frame.sort_values("id", ignore_index=True)
