"""Finds label errors by confident learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from darkroom.datamodules.base import ImageDataModule

from ...errors import RequestError
from ...runtime.extras import require
from ...tracking.recorded_experiment import check_same_classes
from ...tracking.run import RunRecord
from ...tracking.store import open_store
from .findings import LabelIssue, Sample
from .inspection import sample_at


def find_runs(queries: Sequence[str]) -> list[RunRecord]:
    """The runs to ask.

    Raises:
        RequestError: One is not there, or cleanlab is not.
    """
    if queries:
        require("cleanlab", "--labels")
    return [open_store().find_run(query) for query in queries]


def validation_probabilities(runs: Sequence[RunRecord], class_names: Sequence[str]) -> pd.DataFrame:
    """What the runs said of their validation images: probabilities by id; the mean where several saw one.

    Raises:
        RequestError: A run has none, or knows other classes.
    """
    frames = []
    for run in runs:
        check_same_classes(run, class_names)
        frames.append(run.predictions("val").set_index("id").filter(regex=r"^prob_\d+$"))
    return pd.concat(frames).groupby(level=0).mean()


def find_label_issues(data: ImageDataModule, probabilities: pd.DataFrame) -> tuple[LabelIssue, ...]:
    """Images whose label is likely wrong, the most doubtful first (Northcutt et al. 2021).

    Args:
        data: With the splits that hold the images.
        probabilities: Of each class or label, (N, C), by image id; ids that the data lacks are left out.

    Raises:
        RequestError: The data has none of the images.
    """
    places = {
        sample: (split, place)
        for split, store in data.splits.items()
        for place, sample in enumerate(store.ids)
    }
    probabilities = probabilities[probabilities.index.isin(places)]
    if not len(probabilities):
        raise RequestError("the run's validation images are not in this data; is it a run of this data set?")
    found = [places[sample] for sample in probabilities.index]
    targets = np.stack([data.splits[split].targets[place].numpy() for split, place in found])
    values = probabilities.to_numpy(np.float64)
    order = doubtful(targets, values)
    return tuple(
        _issue(sample_at(data, *found[place]), targets[place], values[place], data.class_names)
        for place in order.tolist()
    )


def doubtful(targets: NDArray[Any], probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of likely label errors, by cleanlab, the most doubtful first.

    Args:
        targets: Class indices (N,), or 0 and 1 for each label (N, C).
        probabilities: Of images that were not learned, (N, C).
    """
    if targets.ndim == 2:
        # A label that all of them have, or none, can't be doubted: cleanlab learns from both sides.
        varied = (targets != targets[:1]).any(axis=0)
        targets, probabilities = targets[:, varied], probabilities[:, varied]
        if targets.shape[1] == 0:
            return np.zeros(0, np.int64)
        if targets.shape[1] == 1:  # which it takes as one of two classes alone
            targets = targets[:, 0].astype(np.int64)
            probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
    given: Any = targets
    if targets.ndim == 2:
        from cleanlab.multilabel_classification.filter import find_label_issues as find

        given = [np.flatnonzero(row).tolist() for row in targets]
    else:
        from cleanlab.filter import find_label_issues as find
    ranked = find(given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(ranked, dtype=np.int64)


def _issue(
    sample: Sample, target: NDArray[Any], probabilities: NDArray[np.float64], names: Sequence[str]
) -> LabelIssue:
    if target.ndim == 0:
        suggested = int(probabilities.argmax())
        confidences = float(probabilities[suggested]), float(probabilities[int(target)])
        return LabelIssue(sample, names[suggested], *confidences)
    # Of several labels the one that the network would change first.
    given = np.where(target > 0, probabilities, 1 - probabilities)  # (C,)
    label = int(given.argmin())
    suggested_text = f"without {names[label]}" if target[label] else f"with {names[label]}"
    return LabelIssue(sample, suggested_text, float(1 - given[label]), float(given[label]))
