"""A metric over resampled images: bootstrap replicates of what each run said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.arrays import Floats
from experiments.prediction_store import Outcome, union_of_ids
from experiments.statistics import bootstrap_means, resamples
from lightning_modules.task import build_task

RESAMPLES = 2000
SLOW_RESAMPLES = 500  # of metrics that are no mean over images
MIN_STRATUM = 5  # label sets rarer than this are drawn together

Measure: TypeAlias = Callable[[Outcome, NDArray[np.int64]], float]


def image_scores(outcome: Outcome, metric: str) -> Floats | None:
    """What a metric is the mean of, one for each image, (N,); None where it is no such mean."""
    if metric == "exact_match" or (metric == "accuracy" and outcome.targets.ndim == 1):
        return outcome.right()
    if metric == "accuracy":
        return np.asarray(outcome.labels_right().mean(1))
    if metric == "log_loss":
        probabilities, targets = outcome.probabilities, outcome.targets
        if targets.ndim == 2:
            chosen = np.where(targets == 1, probabilities, 1 - probabilities)  # (N, K)
        else:
            chosen = np.take_along_axis(probabilities, targets[:, None], 1)  # (N, 1)
        epsilon = np.finfo(np.float32).eps  # as LogLoss keeps them
        return np.asarray(-np.log(chosen.clip(epsilon, 1 - epsilon).astype(np.float64)).mean(1))
    return None


def measure(outcome: Outcome, metric: str) -> Measure | None:
    """The very metric that runs record, of images by their places; None where predictions don't tell."""
    task = build_task(outcome.probabilities.shape[1], outcome.task)
    collection = task.metrics()
    ranking = metric in ("auroc", "average_precision")
    if metric not in task.metric_names or metric == "loss":
        return None
    computed = collection["ranking" if ranking else metric]

    def value(judged: Outcome, places: NDArray[np.int64]) -> float:
        computed.reset()
        probabilities = torch.from_numpy(judged.probabilities[places])
        computed.update(probabilities, torch.from_numpy(judged.targets[places]))
        result = computed.compute()
        return float(result[metric] if ranking else result)

    return value


def replicates(outcomes: Sequence[Outcome], metric: str, seed: int = 0) -> Floats | None:
    """The metric of M runs on resampled images, (R, M); None where predictions don't tell it.

    All runs see the same resamples, stratified by class, so that their differences are paired. Of runs
    that judged different images, as folds do, each sees those of its own.
    """
    ids, places = union_of_ids(outcomes)
    strata = strata_of(outcomes, ids, places)
    columns = [image_scores(outcome, metric) for outcome in outcomes]
    if all(column is not None for column in columns):
        scores = np.full((len(ids), len(outcomes)), np.nan)
        for number, column in enumerate(columns):
            scores[places[number], number] = column
        return bootstrap_means(scores, strata, RESAMPLES, seed)
    value = measure(outcomes[0], metric)
    if value is None:
        return None
    found = []
    positions = [_positions(len(ids), each) for each in places]
    for counts in resamples(strata, SLOW_RESAMPLES, seed):
        for row in counts.astype(np.int64):
            drawn = np.repeat(np.arange(len(ids)), row)
            own = [position[drawn] for position in positions]
            found.append(
                [
                    value(outcome, each[each >= 0]) if (each >= 0).any() else np.nan
                    for outcome, each in zip(outcomes, own, strict=True)
                ]
            )
    return np.array(found)


def strata_of(
    outcomes: Sequence[Outcome], ids: NDArray[np.str_], places: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The class of each image, or its set of labels, (N,); rare sets are one."""
    targets = np.zeros((len(ids), *outcomes[0].targets.shape[1:]), np.int64)
    for outcome, where in zip(outcomes, places, strict=True):
        targets[where] = outcome.targets
    if targets.ndim == 1:
        return targets
    _, strata, sizes = np.unique(targets, axis=0, return_inverse=True, return_counts=True)
    strata = strata.reshape(-1)
    return np.asarray(np.where(sizes[strata] < MIN_STRATUM, -1, strata))


def _positions(size: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of all images stands among one run's, (N,); -1 where it does not."""
    positions = np.full(size, -1)
    positions[places] = np.arange(len(places))
    return positions
