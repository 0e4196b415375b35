"""What charts show of groups: learning curves, ROC curves, classes, and which groups err together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...evaluation.array_types import Floats
from ...evaluation.predictions import confusion_counts, label_confusion_counts, positives_of
from ...evaluation.stored_predictions import StoredPredictions
from ...reporting.svg import ChartLine, colour
from .comparison import same_images
from .groups import Group

MAX_CLASSES = 100  # of which ROC curves are averaged
LEAST_RATE = 1e-3  # of false positives, where the axis begins
FALSE_RATES = np.concatenate([[0], np.logspace(-3, 0, 200)])


def learning_curves(groups: Sequence[Group], metric: str) -> list[ChartLine]:
    """Each group's mean over seeds and their range, up to the last epoch that all of them have."""
    found = []
    for place, group in enumerate(groups):
        histories = [member.history.get(metric, ()) for member in group.members]
        length = min(map(len, histories))
        if length:
            values = np.array([[value for _, value in history[:length]] for history in histories])
            epochs = np.array([float(epoch) for epoch, _ in histories[0][:length]])
            found.append(_curve(group, place, epochs, values))
    return found


def roc_curves(groups: Sequence[Group]) -> list[ChartLine]:
    """Each group's mean over seeds, and their range, of the curve averaged over classes; above 0.001."""
    found = []
    for place, group in enumerate(groups):
        curves = [roc_curve(member.outcome) for member in group.members]
        heights = np.array([curve for curve in curves if curve is not None])
        if len(heights):
            found.append(_curve(group, place, FALSE_RATES[1:], heights[:, 1:]))
    return found


def roc_curve(outcome: StoredPredictions) -> Floats | None:
    """True positive rate at each of FALSE_RATES, one against the rest, averaged over classes that have both.

    The first hundred classes; of two the second alone. None where no class has both.
    """
    from sklearn.metrics import roc_curve as curve_of  # takes a second to import

    num_classes = outcome.probabilities.shape[1]
    positives = positives_of(outcome.targets, num_classes)  # (N, C)
    chosen = [1] if outcome.task == "binary" else range(min(num_classes, MAX_CLASSES))
    heights = []
    for label in chosen:
        if positives[:, label].any() and not positives[:, label].all():
            false, true, _ = curve_of(positives[:, label], outcome.ranking[:, label])
            heights.append(np.interp(FALSE_RATES, false, true))
    return np.mean(heights, axis=0) if heights else None


def class_scores(groups: Sequence[Group]) -> Floats:
    """F1 of each class or label, mean over seeds, (C, M); labels above a probability of one half."""
    return np.array(
        [np.mean([_f1(member.outcome) for member in group.members], axis=0) for group in groups]
    ).T


def agreement(groups: Sequence[Group]) -> Floats:
    """Returns the share of one run's mistakes that another makes too, (M, M); rows are the one.

    Averaged over pairs of seeds; on the diagonal over pairs of different seeds of one group, NaN where it
    has one. NaN too where two judged different images, or one errs on none.
    """
    shares = np.full((len(groups), len(groups)), np.nan)
    for row, one in enumerate(groups):
        for column, other in enumerate(groups):
            if same_images(one, other):
                shares[row, column] = _shared_mistakes(one, other)
    return shares


def _shared_mistakes(one: Group, other: Group) -> float:
    mistakes = (1 - one.right) @ (1 - other.right)  # expected, of a seed of each
    total = (1 - one.right).sum()
    if one is other:
        num_seeds = len(one.members)
        if num_seeds == 1 or one.folds:
            return float("nan")
        # Of the mean over all pairs of seeds, those of a seed with itself are left out.
        mistakes = (mistakes * num_seeds - total) / (num_seeds - 1)
    return float(mistakes / total) if total else float("nan")


def _f1(outcome: StoredPredictions) -> Floats:
    if outcome.targets.ndim == 2:
        counts = label_confusion_counts(outcome.targets, outcome.probabilities > 0.5)
        hits, support, predicted = counts[:, 1, 1], counts[:, 1].sum(1), counts[:, :, 1].sum(1)
    else:
        num_classes = outcome.probabilities.shape[1]
        table = confusion_counts(outcome.targets, outcome.probabilities.argmax(1), num_classes)
        hits, support, predicted = table.diagonal(), table.sum(1), table.sum(0)
    return np.asarray(2 * hits / np.maximum(support + predicted, 1))


def _curve(group: Group, place: int, x: Floats, values: Floats) -> ChartLine:
    name = f"{group.name}  {group.label}"
    return ChartLine(name, colour(place), x, values.mean(0), values.min(0), values.max(0))
