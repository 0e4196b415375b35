"""Tables from predictions: confusion matrices, per-class metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .array_types import Bools, Floats

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.datamodules.base import ImageDataModule
    from darkroom.lightning_modules.metrics.epoch_outputs import Predictions


def split_frame(split: str, predictions: Predictions, data: ImageDataModule) -> pd.DataFrame:
    """The prediction store of one split, its images by id."""
    store, places = data.splits[split], predictions.indices.tolist()
    return prediction_frame(
        [store.ids[place] for place in places],
        predictions.targets.cpu().numpy(),
        predictions.probabilities.cpu().numpy(),
        None if store.groups is None else [store.groups[place] for place in places],
        None if predictions.log_odds is None else predictions.log_odds.cpu().numpy(),
    )


def prediction_frame(
    ids: list[str],
    targets: NDArray[Any],
    probabilities: Floats,
    groups: Sequence[str] | None = None,
    log_odds: Floats | None = None,
) -> pd.DataFrame:
    """The prediction store: `id`, `target`, and `prob_0` ... of which a binary task keeps `prob_1` alone.

    `log_odds_0` ... rank images for each class where probabilities are rounded to 0 and 1.

    Labels (N, K) have `target_0` ... and `prob_0` ... for each label. `group` is there where the data has
    groups, such as patients.
    """
    num_classes = probabilities.shape[1]
    kept = [1] if num_classes == 2 and targets.ndim == 1 else range(num_classes)
    columns = {f"prob_{label}": probabilities[:, label] for label in kept}
    if log_odds is not None:
        columns |= {f"log_odds_{label}": log_odds[:, label] for label in kept}
    return pd.DataFrame({"id": ids, **group_column(groups), **target_columns(targets), **columns})


def group_column(groups: Sequence[str] | None) -> dict[str, list[str]]:
    """The groups of images as a column, where there are groups.

    >>> group_column(["ann", "bob"]), group_column(None)
    ({'group': ['ann', 'bob']}, {})
    """
    return {} if groups is None else {"group": list(groups)}


def target_columns(targets: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    """Class indices (N,) as `target`, labels (N, K) as `target_0` ...

    >>> target_columns(np.array([[1.0, 0.0]]))
    {'target_0': array([1]), 'target_1': array([0])}
    """
    if targets.ndim == 1:
        return {"target": targets}
    return {f"target_{label}": column for label, column in enumerate(targets.T.astype(np.int64))}


def confusion_counts(
    targets: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Counts (C, C), rows the true class, columns the predicted one.

    >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    cells = targets * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def per_class_table(counts: NDArray[np.int64], class_names: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, F1 and support of each class, from a confusion matrix; 0 where undefined."""
    hits, support, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    return pd.DataFrame({"class": list(class_names), **_ratios(hits, support, predicted), "support": support})


def label_confusion_counts(targets: NDArray[Any], predicted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts (K, 2, 2) from labels (N, K): rows absent and present, columns predicted absent and present.

    >>> label_confusion_counts(np.array([[1], [0], [1]]), np.array([[True], [True], [False]])).tolist()
    [[[0, 1], [1, 1]]]
    """
    present = targets > 0.5
    rows = [[(~present & ~predicted).sum(0), (~present & predicted).sum(0)]]
    rows += [[(present & ~predicted).sum(0), (present & predicted).sum(0)]]
    return np.array(rows).transpose(2, 0, 1)


def label_confusion_table(counts: NDArray[np.int64], class_names: Sequence[str]) -> pd.DataFrame:
    """One row for each label, of counts (K, 2, 2)."""
    names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
    cells = counts.reshape(-1, 4).T
    return pd.DataFrame({"label": list(class_names), **dict(zip(names, cells, strict=True))})


def per_label_table(
    targets: NDArray[Any],
    probabilities: Floats,
    thresholds: Sequence[float],
    class_names: Sequence[str],
    ranking: Floats,
) -> pd.DataFrame:
    """What each label is worth: precision, recall and F1 at its threshold, and the areas below its curves.

    Args:
        targets: 0 or 1, (N, K).
        probabilities: (N, K).
        thresholds: (K,).
        class_names: K of them.
        ranking: What images are ranked by, (N, K).

    Returns:
        One row for each label; ratios are 0 where undefined, areas NaN. `support` counts the images
        that have the label.
    """

    import torch  # takes seconds, and what only reads records does without

    from darkroom.lightning_modules.metrics.collection import rank_scores

    counts = label_confusion_counts(targets, probabilities > thresholds)
    hits, support, predicted = counts[:, 1, 1], counts[:, 1].sum(1), counts[:, :, 1].sum(1)
    scores, present = torch.from_numpy(ranking), torch.from_numpy(targets > 0.5)
    areas = [rank_scores(*column) for column in zip(scores.T, present.T, strict=True)]
    return pd.DataFrame(
        {
            "label": list(class_names),
            **_ratios(hits, support, predicted),
            "average_precision": [float(precision) for _, precision in areas],
            "auroc": [float(area) for area, _ in areas],
            "support": support,
            "threshold": list(thresholds),
        }
    )


def _ratios(
    hits: NDArray[np.int64], support: NDArray[np.int64], predicted: NDArray[np.int64]
) -> dict[str, Floats]:
    return {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
    }


def positives_of(targets: NDArray[Any], num_classes: int) -> Bools:
    """Classes (N,), or labels (N, C) of 0 and 1, to whether each image has each of them, (N, C)."""
    return targets > 0.5 if targets.ndim == 2 else targets[:, None] == np.arange(num_classes)


def target_names(targets: Tensor, class_names: Sequence[str]) -> str:
    """An image's class by name, or its labels.

    >>> import torch
    >>> target_names(torch.tensor(1), ["cat", "dog"]), target_names(torch.tensor([1.0, 1.0]), ["cat", "dog"])
    ('dog', 'cat, dog')
    """
    if targets.ndim == 0:
        return class_names[int(targets)]
    present = [name for name, target in zip(class_names, targets.tolist(), strict=True) if target > 0.5]
    return ", ".join(present) or "none"
