"""Cross-validations as ensemble members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.images.store import join
from darkroom.lightning_modules.predictor import WeightedMean

from ...evaluation.stored_predictions import StoredPredictions
from ...tracking.run import PARENT_TAG, RunRecord
from ...tracking.store import Store

# What has the data's training images be whole, as a cross-validation judges them.
WHOLE = {
    "data.folds": "null",
    "data.fold": "0",
    "data.val_fraction": "0.0",
    "data.train_fraction": "null",
    "data.train_per_class": "null",
    "data.bootstrap": "false",
}
FoldRuns = Mapping[str, Sequence[RunRecord]]


def gather_folds(store: Store, runs: Sequence[RunRecord]) -> tuple[list[RunRecord], FoldRuns]:
    """Cross-validations in the place of their folds, where these are among the runs, all of them.

    Returns:
        The runs, and the folds of each cross-validation by its run id.
    """
    parts: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.tags.get("role") == "fold":
            parts.setdefault(run.tags[PARENT_TAG], []).append(run)
    whole = {parent: folds for parent, folds in parts.items() if _is_whole(store.run(parent), folds)}
    named = [run.tags[PARENT_TAG] if run.tags.get(PARENT_TAG) in whole else run.run_id for run in runs]
    return [store.run(run_id) for run_id in dict.fromkeys(named)], whole


def _is_whole(parent: RunRecord, folds: Sequence[RunRecord]) -> bool:
    wanted = int(folds[0].params["data.folds"])
    return parent.status == "FINISHED" and {run.tags["fold"] for run in folds} == set(map(str, range(wanted)))


def mean_outcome(outcomes: Sequence[StoredPredictions]) -> StoredPredictions:
    """What several networks said of the same images, in the same order, on average."""
    first = outcomes[0]
    assert all(np.array_equal(each.ids, first.ids) for each in outcomes)
    mean = np.mean(np.stack([each.probabilities for each in outcomes]), axis=0, dtype=np.float32)
    known = [each.log_odds for each in outcomes if each.log_odds is not None]
    log_odds = None
    if len(known) == len(outcomes):
        equal = WeightedMean([1 / len(known)] * len(known))
        combined = equal.log_odds(torch.from_numpy(mean), torch.from_numpy(np.stack(known, axis=1)))
        log_odds = None if combined is None else combined.numpy()
    return replace(first, probabilities=np.asarray(mean), log_odds=log_odds)


def judge_all_training_images(data: ImageDataModule) -> None:
    """Takes the training images, as `WHOLE` has them, for validation: out of fold each was."""
    whole = data.splits["train"]
    if "val" in data.splits:  # the source's own, which are folded too
        whole = join(whole, data.splits["val"])
    data.splits |= {"train": whole, "val": whole}
