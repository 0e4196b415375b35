"""Bootstrap replicates of a metric over images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from darkroom.lightning_modules.metrics.names import RANKING_METRICS

from .array_types import Floats
from .clustered import Groups, corrected, group_of_image, groups_by_id, linearized
from .significance import bootstrap_means, resamples
from .stored_predictions import StoredPredictions, union_of_ids

RESAMPLES = 2000
SLOW_RESAMPLES = 500  # of metrics that are no mean over images
MAX_GROUPS = 200  # left out in turn, of metrics that are no mean over images
MIN_STRATUM = 5  # label sets rarer than this are drawn together
MetricFunction: TypeAlias = Callable[[StoredPredictions, NDArray[np.int64]], float]


def image_scores(outcome: StoredPredictions, metric: str) -> Floats | None:
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


def measure(outcome: StoredPredictions, metric: str) -> MetricFunction | None:
    """The very metric that runs record, of images by their places; None where predictions don't tell."""
    import torch  # takes seconds, and metrics that are means over images do without

    from darkroom.lightning_modules.task import build_task

    task = build_task(outcome.probabilities.shape[1], outcome.task)
    collection = task.metrics()
    ranking = metric in RANKING_METRICS
    if metric not in task.metric_names or metric == "loss":
        return None
    computed = collection["ranking" if ranking else metric]

    def value(judged: StoredPredictions, places: NDArray[np.int64]) -> float:
        computed.reset()
        probabilities = torch.from_numpy(judged.probabilities[places])
        targets = torch.from_numpy(judged.targets[places])
        if ranking or metric == "accuracy_top5":
            computed.update(probabilities, targets, torch.from_numpy(judged.ranking[places]))
        else:
            computed.update(probabilities, targets)
        result = computed.compute()
        return float(result[metric] if ranking else result)

    return value


def unit_scores(
    outcomes: Sequence[StoredPredictions], metric: str, units: Mapping[str, str] | None = None
) -> Floats | None:
    """What each unit adds to the metric of M runs, (U, M): columns have the metrics as means.

    A unit is what was drawn independently of the others: by default an image, else a group of images, such
    as those of one patient. The variance of the mean of a column's U rows is the squared standard error of
    the metric, were other units drawn. Where a metric is a mean over images, a row is an image's score, or of
    a group of images their linearised sum. Elsewhere it is a jackknife pseudo-value (Quenouille 1956), from
    the metric without that unit; of more than 200 units random groups are left out, which are then the rows.

    Args:
        outcomes: What the runs said.
        metric: Its name.
        units: The unit of each image, by the image's id; None makes each image its own.

    Returns:
        NaN where a run judged none of a unit's images, as with folds. None where predictions don't tell the
        metric.
    """
    ids, places = union_of_ids(outcomes)
    names = ids if units is None else np.array([units[name] for name in ids.tolist()])
    members = np.unique(names, return_inverse=True)[1].reshape(-1)  # the unit of each image, (N,)
    columns = [image_scores(outcome, metric) for outcome in outcomes]
    if all(column is not None for column in columns):
        pairs = [
            (column, members[where])
            for column, where in zip(columns, places, strict=True)
            if column is not None
        ]
        return np.stack([linearized(*pair, int(members.max()) + 1) for pair in pairs], axis=1)
    value = measure(outcomes[0], metric)
    if value is None:
        return None
    num_groups = min(int(members.max()) + 1, MAX_GROUPS)
    order = np.random.default_rng(0).permutation(int(members.max()) + 1)
    groups = order[members] % num_groups
    return np.stack(
        [
            _pseudo_values(outcome, value, groups[where], num_groups)
            for outcome, where in zip(outcomes, places, strict=True)
        ],
        axis=1,
    )


def _pseudo_values(
    outcome: StoredPredictions, value: MetricFunction, groups: NDArray[np.int64], num_groups: int
) -> Floats:
    """Returns each group's pseudo-value, (G,): how a metric of images in groups (N,) changes without it."""
    whole, size = value(outcome, np.arange(len(groups))), len(groups)
    effects = np.full(num_groups, np.nan)
    for group in np.unique(groups).tolist():
        kept = np.flatnonzero(groups != group)
        # Where the others don't define the metric, the group is taken for an average one.
        without = value(outcome, kept) if len(kept) else math.nan
        effects[group] = (whole - without) * len(kept) / size if math.isfinite(without) else 0.0
    effects *= np.isfinite(effects).sum()
    sizes = np.bincount(groups, minlength=num_groups)
    centered = np.nan_to_num(effects - np.nanmean(effects))
    return np.asarray(np.where(sizes > 0, whole + corrected(centered, sizes), np.nan))


def replicates(outcomes: Sequence[StoredPredictions], metric: str, seed: int = 0) -> Floats | None:
    """The metric of M runs on resampled images, (R, M); None where predictions don't tell it.

    All runs see the same resamples, stratified by class, so that their differences are paired. Of runs
    that judged different images, as folds do, each sees those of its own.

    Of images in groups whole groups are drawn, and the replicates' distances from the metric are made wider
    until their percentiles are those of Student's interval (a bootstrap over few groups is too narrow).
    """
    ids, places = union_of_ids(outcomes)
    group_of = group_of_image(outcomes)
    if group_of is not None:
        return _grouped_replicates(outcomes, metric, groups_by_id(outcomes, group_of), seed)
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


def _grouped_replicates(
    outcomes: Sequence[StoredPredictions], metric: str, groups: Groups, seed: int
) -> Floats | None:
    value = measure(outcomes[0], metric)
    if value is None:
        return None
    ids, places = union_of_ids(outcomes)
    positions = [_positions(len(ids), each) for each in places]
    found = []
    number = len(groups.sizes)
    for counts in resamples(np.zeros(number), SLOW_RESAMPLES, seed):
        for row in counts.astype(np.int64):
            drawn = np.repeat(np.arange(len(ids)), row[groups.places])
            own = [position[drawn] for position in positions]
            found.append(
                [
                    value(outcome, each[each >= 0]) if (each >= 0).any() else np.nan
                    for outcome, each in zip(outcomes, own, strict=True)
                ]
            )
    whole = np.array([value(outcome, np.arange(len(outcome.ids))) for outcome in outcomes])
    quantiles = stats.t.ppf(0.975, groups.freedom) / stats.norm.ppf(0.975)
    wider = quantiles * math.sqrt(number / max(number - 1, 1))
    return np.asarray(whole + wider * (np.array(found) - whole))


def strata_of(
    outcomes: Sequence[StoredPredictions], ids: NDArray[np.str_], places: Sequence[NDArray[np.int64]]
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
