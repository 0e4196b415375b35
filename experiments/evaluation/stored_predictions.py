"""Predictions by image id, for analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from darkroom.lightning_modules.task import TaskName


@dataclass(frozen=True)
class StoredPredictions:
    """What a run's chosen checkpoint said of N images.

    Attributes:
        ids: Of the images, (N,).
        targets: Class indices, (N,), or 0 and 1 for each label, (N, K).
        probabilities: Of each class or label, float32 (N, C).
        log_odds: Of each class or label, float32 (N, C), by which images are ranked; None where probabilities
            alone are recorded.
        groups: Of the images, such as patients, (N,); None where the data has none, or none are recorded.
        grouped_by: What the groups are, the name of their column in the data; None where it has none.
    """

    ids: NDArray[np.str_]
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    groups: NDArray[np.str_] | None = None
    grouped_by: str | None = None
    log_odds: NDArray[np.float32] | None = None

    @property
    def ranking(self) -> NDArray[np.float32]:
        """What images are ranked by for each class or label, (N, C)."""
        return self.probabilities if self.log_odds is None else self.log_odds

    def at(self, places: NDArray[np.integer] | NDArray[np.bool_]) -> StoredPredictions:
        """What was said of some of the images, by their places (M,) or a mask (N,)."""
        return replace(
            self,
            ids=self.ids[places],
            targets=self.targets[places],
            probabilities=self.probabilities[places],
            log_odds=None if self.log_odds is None else self.log_odds[places],
            groups=None if self.groups is None else self.groups[places],
        )

    @property
    def task(self) -> TaskName:
        """Binary, multiclass or multilabel."""
        if self.targets.ndim == 2:
            return "multilabel"
        return "binary" if self.probabilities.shape[1] == 2 else "multiclass"

    def right(self) -> NDArray[np.float32]:
        """1 for each image whose class, or all of whose labels, are predicted; else 0; (N,)."""
        if self.targets.ndim == 2:
            return np.asarray(self.labels_right().all(1), dtype=np.float32)
        return np.asarray(self.probabilities.argmax(1) == self.targets, dtype=np.float32)

    def labels_right(self) -> NDArray[np.bool_]:
        """Whether each label is rightly there or not there, above a probability of one half, (N, K)."""
        return np.asarray((self.probabilities > 0.5) == (self.targets == 1))


def union_of_ids(outcomes: Sequence[StoredPredictions]) -> tuple[NDArray[np.str_], list[NDArray[np.int64]]]:
    """All images that anyone judged, (N,), and where each one's stand among them."""
    ids = np.unique(np.concatenate([outcome.ids for outcome in outcomes]))
    return ids, [np.searchsorted(ids, outcome.ids) for outcome in outcomes]
