"""Metrics, intervals and p-values per slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ...evaluation.array_types import Floats
from ...evaluation.clustered import Groups, gap_between, grouped_share_interval, linearized, outcome_groups
from ...evaluation.proportions import share_interval
from ...evaluation.significance import CONFIDENCE, SIGNIFICANCE, Interval, holm
from ...evaluation.stored_predictions import StoredPredictions
from .slicing import Slice

SliceVerdict: TypeAlias = Literal["worse", "better", "cannot tell", "too small"]
MIN_IMAGES = 10  # of a slice, and of the rest; over fewer an interval may span half of all accuracies
UNKNOWN = Interval(-math.inf, math.inf)


@dataclass(frozen=True)
class Judged:
    """A slice and what a run is worth on it.

    Attributes:
        by: What its images have in common is a value of this.
        name: That value.
        size: Images.
        accuracy: Share of images that are right; of several labels, in all of them.
        accuracy_within: Wilson's 95 % interval, over groups of images where there are any.
        f1: Mean F1 of the classes or labels that the slice has; of a slice by class, that of the class
            among all images. NaN where the slice is too small.
        f1_within: Its 95 % interval over images; infinite where nothing is wrong.
        gap: Accuracy less that of the rest; negative where the slice is worse.
        gap_within: Newcombe's 95 % interval; over groups that of
            `darkroom.experiments.evaluation.clustered.gap_between`.
        p: Of Fisher's exact test that slice and rest are right equally often, corrected for the number of
            slices by Holm; NaN where the slice, or the rest, is too small.
    """

    by: str
    name: str
    size: int
    accuracy: float
    accuracy_within: Interval
    f1: float = math.nan
    f1_within: Interval = UNKNOWN
    gap: float = math.nan
    gap_within: Interval = UNKNOWN
    p: float = math.nan

    @property
    def verdict(self) -> SliceVerdict:
        """Whether it differs from the rest beyond chance."""
        if math.isnan(self.p):
            return "too small"
        if self.p >= SIGNIFICANCE:
            return "cannot tell"
        return "worse" if self.gap < 0 else "better"


def judge_slices(outcome: StoredPredictions, slices: Sequence[Slice]) -> list[Judged]:
    """Judges all slices that have an image: first what is worse beyond chance, then by the gap, last the
    small ones.

    A slice that is all there is has no rest to be held against, and is left out.
    """
    right = outcome.right() > 0.5  # (N,)
    told = [each for each in slices if 0 < each.members.sum() < len(right)]
    truth, predicted = indicators(outcome)
    of_classes = f1_scores(truth, predicted) if any(each.label is not None for each in told) else None
    groups = outcome_groups(outcome)
    found = []
    for each in told:
        judged = judge_slice(right, each, groups)
        if not math.isnan(judged.p):
            if each.label is not None and of_classes is not None:
                f1, f1_within = mean_f1(of_classes, [each.label], groups)
            else:
                there = np.flatnonzero(truth[each.members].any(axis=0)).tolist()
                scores = f1_scores(truth[each.members], predicted[each.members])
                own = None if groups is None else groups.at(each.members)
                f1, f1_within = mean_f1(scores, there, own)
            judged = replace(judged, f1=f1, f1_within=f1_within)
        found.append(judged)
    corrected = holm([each.p for each in found]) if found else []
    judged_slices = [replace(each, p=p) for each, p in zip(found, corrected, strict=True)]
    return sorted(judged_slices, key=_worst_first)


def _worst_first(judged: Judged) -> tuple[bool, bool, float]:
    small = judged.verdict == "too small"
    return small, judged.verdict != "worse", judged.accuracy if small else judged.gap


def judge_slice(right: NDArray[np.bool_], part: Slice, groups: Groups | None = None) -> Judged:
    """Accuracy of a slice, and its gap to the rest with an uncorrected p-value; `right` is (N,).

    Of images in groups whole groups were drawn: too few of them, in the slice or the rest, are too small.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint  # half a second

    size, rest = int(part.members.sum()), int((~part.members).sum())
    hits, rest_hits = int(right[part.members].sum()), int(right[~part.members].sum())
    low, high = proportion_confint(hits, size, alpha=1 - CONFIDENCE, method="wilson")
    judged = Judged(part.by, part.name, size, hits / size, Interval(float(low), float(high)))
    if groups is not None:
        scores = right.astype(np.float64)
        within = grouped_share_interval(scores[part.members], groups.at(part.members))
        gap = gap_between(scores, groups, part.members)
        judged = replace(judged, accuracy_within=within)
        if min(size, rest) < MIN_IMAGES or math.isnan(gap.p):
            return judged
        return replace(judged, gap=gap.value, gap_within=gap.within, p=gap.p)
    if min(size, rest) < MIN_IMAGES:
        return judged
    ends = confint_proportions_2indep(
        hits, size, rest_hits, rest, method="newcomb", compare="diff", alpha=1 - CONFIDENCE
    )
    table = [[hits, size - hits], [rest_hits, rest - rest_hits]]
    return replace(
        judged,
        gap=hits / size - rest_hits / rest,
        gap_within=Interval(*map(float, ends)),
        p=float(stats.fisher_exact(table).pvalue),
    )


# F1 ---------------------------------------------------------------------------------------------


def indicators(outcome: StoredPredictions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Which classes or labels images have, and are predicted to have: 0 or 1, (N, C) each."""
    if outcome.targets.ndim == 2:
        return outcome.targets.astype(np.float32), (outcome.probabilities > 0.5).astype(np.float32)
    classes = np.arange(outcome.probabilities.shape[1])
    predicted = outcome.probabilities.argmax(axis=1)
    truth, said = (each[:, None] == classes for each in (outcome.targets, predicted))
    return truth.astype(np.float32), said.astype(np.float32)


def f1_scores(truth: NDArray[Any], predicted: NDArray[Any]) -> Floats:
    """What each image adds to the F1 of each class, (N, C), of indicators (N, C): columns have F1 as means.

    Of an image it is F1 plus the effect that the image has on it, the empirical influence (Hampel 1974). NaN
    where a class is neither there nor predicted.
    """
    both, either = (truth * predicted).astype(np.float64), (truth + predicted).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * both.sum(0) / either.sum(0)  # (C,)
        return np.asarray(f1 + (2 * both - f1 * either) / either.mean(0))


def mean_f1(scores: Floats, classes: Sequence[int], groups: Groups | None = None) -> tuple[float, Interval]:
    """Mean over these classes, with its interval, of what `f1_scores` gives; over groups of the images (N,).

    Without a mistake there is no interval: F1 counts no images, of which Wilson's would be made.
    """
    chosen = scores[:, list(classes)]
    chosen = chosen[:, ~np.isnan(chosen).any(axis=0)]
    if not chosen.shape[1]:  # no image has any label
        return math.nan, UNKNOWN
    images = chosen.mean(axis=1)  # (N,)
    f1, freedom = float(images.mean()), None
    if f1 >= 1 - 1e-12 or (groups is not None and not groups.are_enough):
        return f1, UNKNOWN
    if groups is not None:
        images, freedom = linearized(images, groups.places, len(groups.sizes)), groups.freedom
    return f1, share_interval(images, is_count=False, freedom=freedom)
