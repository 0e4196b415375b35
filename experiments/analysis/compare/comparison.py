"""What a comparison finds: each group's mean with its intervals, each pair's difference with its tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ...evaluation.array_types import Floats
from ...evaluation.bootstrap import unit_scores
from ...evaluation.clustered import UNKNOWN, Groups, group_of_image, grouped_share_interval, groups_by_id
from ...evaluation.proportions import mean_interval, share_interval
from ...evaluation.significance import (
    SIGNIFICANCE,
    Interval,
    folds_interval,
    folds_p_value,
    holm,
    mcnemar,
    practical_difference,
    seeds_p_value,
    t_interval,
)
from ...evaluation.two_way_test import Needed, difference_interval, difference_p_value, two_way_test
from .groups import Group

COUNTED = ("accuracy", "exact_match")  # metrics that are the share of images McNemar's test counts
UNBOUNDED = ("loss", "log_loss")  # metrics that are no share


@dataclass(frozen=True)
class GroupSummary:
    """One group's metric.

    Attributes:
        group: The runs.
        mean: Over its runs.
        deviation: Standard deviation over runs; NaN of a single one.
        over_seeds: 95 % interval of the mean, were other seeds drawn; of folds corrected for what they share.
            Infinite of a single run, and of runs that tie.
        over_images: 95 % interval of the mean of these runs, were other images judged, or other groups of
            them; None where predictions don't tell the metric, infinite where the groups are too few.
        image_groups: Of the images, by id; None where they have none.
    """

    group: Group
    mean: float
    deviation: float
    over_seeds: Interval
    over_images: Interval | None
    image_groups: Groups | None = None


@dataclass(frozen=True)
class Pair:
    """The difference between two groups, of which the first ranks higher; p-values are corrected by Holm.

    Attributes:
        first: Ranks higher.
        second: Ranks lower.
        difference: First mean less second mean.
        over_both: 95 % interval of the difference, were other seeds drawn and other images judged; None
            where it is not tested.
        over_images: 95 % interval of the difference of these runs, were other images judged; None where
            theirs differ.
        p: That other seeds and other images would show no difference (the two-way test), by which the
            verdict goes; NaN of a single seed, and where images differ or predictions don't tell the metric.
        p_images: That these runs do equally well on other images; NaN where their images differ.
        p_seeds: That other seeds would show no difference on these images (Welch; of folds Nadeau and
            Bengio); NaN where the spread is not known.
        needed: Seeds of each, or images, to find a difference of this size four times in five.
        practical: Probabilities that the first is better, that both are the same, that the second is.
        image_groups: Of the images, by which images are judged then; None where they have none.
    """

    first: Group
    second: Group
    difference: float
    over_both: Interval | None
    over_images: Interval | None
    p: float
    p_images: float
    p_seeds: float
    needed: Needed | None
    practical: tuple[float, float, float] | None = None
    image_groups: Groups | None = None

    @property
    def differ(self) -> bool:
        """Whether they are told apart: over seeds and images, or as two models over images."""
        p = self.p if self.of_configurations else self.p_images
        return not math.isnan(p) and p < SIGNIFICANCE

    @property
    def of_configurations(self) -> bool:
        """Whether both have several runs, so that it can be asked what other seeds would give."""
        return min(len(self.first.members), len(self.second.members)) > 1

    @property
    def verdict(self) -> str:
        """What can be said, in a sentence."""
        sizes = len(self.first.members), len(self.second.members)
        if not same_images(self.first, self.second):
            return "not tested: they judged different images"
        unit = "images" if self.image_groups is None else "groups of images"
        if min(sizes) == 1:
            if self.image_groups is not None and not self.image_groups.are_enough:
                return "not tested: too few groups of images, and a single seed"
            return models_verdict(self.first.name, self.p_images, max(sizes) == 1)
        needed = self.needed
        if needed is not None and needed.seeds is not None and needed.seeds <= max(sizes):
            needed = None  # Holm's correction alone took the difference away
        return verdict(self.first.name, self.p, self.p_images, self.p_seeds, needed, unit)


@dataclass(frozen=True)
class Comparison:
    """All that was found.

    Attributes:
        metric: As test/accuracy.
        minimized: Whether less of it is better.
        summaries: The best group first.
        pairs: Each two of them.
        remarks: What the reader has to know to judge it.
    """

    metric: str
    minimized: bool
    summaries: tuple[GroupSummary, ...]
    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]

    @property
    def groups(self) -> list[Group]:
        return [summary.group for summary in self.summaries]

    @property
    def split(self) -> str:
        return self.metric.partition("/")[0]

    def different(self) -> NDArray[np.bool_]:
        """Which two groups, by rank, are told apart."""
        places = {group.name: place for place, group in enumerate(self.groups)}
        told = np.zeros((len(places), len(places)), dtype=bool)
        for pair in self.pairs:
            one, other = places[pair.first.name], places[pair.second.name]
            told[one, other] = told[other, one] = pair.differ
        return told


def compare(
    groups: Sequence[Group], metric: str, minimized: bool, rope: float | None = None
) -> tuple[list[GroupSummary], list[Pair]]:
    """Each group by itself, then each two; groups are ranked already.

    Args:
        groups: The best mean first.
        metric: Without its split.
        minimized: Whether less is better.
        rope: Difference that does not matter in practice, for the Bayesian test; None leaves it out.
    """
    scores = _scores(groups, metric)
    summaries = [summarize(group, metric, scores.get(group.name)) for group in groups]
    pairs = [_compare_two(*two, metric, scores, minimized, rope) for two in combinations(groups, 2)]
    return summaries, _corrected(pairs)


def summarize(group: Group, metric: str, scores: Floats | None) -> GroupSummary:
    """A group by itself, with what `unit_scores` gives of its runs, (U, S)."""
    values = group.values
    over_seeds = folds_interval(values, 1 / (group.folds - 1)) if group.folds else t_interval(values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    image_groups = groups_of_images(group)
    over_images = None if scores is None else _over_images(group, metric, scores, image_groups)
    return GroupSummary(group, float(np.mean(values)), deviation, over_seeds, over_images, image_groups)


def _over_images(group: Group, metric: str, scores: Floats, image_groups: Groups | None) -> Interval:
    means = np.nanmean(scores, axis=1)
    freedom = None
    if image_groups is not None:
        if not image_groups.are_enough:
            return UNKNOWN
        if _counts_images(group, metric):
            return grouped_share_interval(group.right, image_groups)
        freedom = image_groups.freedom
    if metric in UNBOUNDED:
        return mean_interval(means, freedom=freedom)
    return share_interval(means, is_count=metric in COUNTED, freedom=freedom)


def _counts_images(group: Group, metric: str) -> bool:
    """Whether a metric is the share of images that are right."""
    single = group.members[0].outcome.targets.ndim == 1
    return metric == "exact_match" or (metric == "accuracy" and single)


def groups_of_images(*runs: Group) -> Groups | None:
    """Returns the group of each image that the runs judged, by id; None where images have none."""
    outcomes = [member.outcome for group in runs for member in group.members]
    group_of = group_of_image(outcomes)
    return None if group_of is None else groups_by_id(outcomes, group_of)


def same_images(one: Group, other: Group) -> bool:
    """Whether two groups judged the same images, by id, of the same classes and with the same targets."""
    return one.images == other.images and one.members[0].class_names == other.members[0].class_names


def verdict(
    better: str, p: float, p_images: float, p_seeds: float, needed: Needed | None, unit: str = "images"
) -> str:
    """What the two-way test says of two configurations, and why where it finds no difference.

    Args:
        better: The group with the better mean.
        p: Over seeds and images.
        p_images: Of these runs, over images.
        p_seeds: Over seeds, on these images.
        needed: What would tell.
        unit: What was drawn independently: images, or groups of them.

    >>> verdict("A", 0.01, 0.001, 0.001, Needed(3))
    'A is better'
    >>> verdict("A", 0.2, 0.001, 0.3, Needed(12))
    'no difference found: these runs differ, but seeds vary as much; 12 seeds of each would tell'
    >>> verdict("A", 0.2, 0.3, 0.01, Needed(None, 4000))
    'no difference found: seeds agree, but other images might not; at least 4,000 images would tell, no seeds'
    >>> verdict("A", 0.4, 0.4, 0.3, None)
    'no difference found'
    """
    if math.isnan(p):
        if p_seeds < SIGNIFICANCE:
            return f"{better}'s mean is better over seeds on these images; other images are not tested"
        return "no difference found over seeds; other images are not tested"
    if p < SIGNIFICANCE:
        return f"{better} is better"
    reason = ""
    if p_images < SIGNIFICANCE:
        reason = ": these runs differ, but seeds vary as much"
    elif p_seeds < SIGNIFICANCE:
        reason = ": seeds agree, but other images might not"
    return f"no difference found{reason}{_told(needed, unit)}"


def _told(needed: Needed | None, unit: str) -> str:
    if needed is None:
        return ""
    if needed.seeds is not None:
        return f"; {needed.seeds:,} seeds of each would tell"
    if needed.images is not None:
        return f"; at least {needed.images:,} {unit} would tell, no seeds"
    return f"; neither more seeds nor {unit} would tell"


def models_verdict(better: str, p_images: float, single: bool = True) -> str:
    """What a test over images alone says of fixed models, where a single seed leaves configurations untested.

    Args:
        better: The group with the better mean.
        p_images: Over images.
        single: Whether both are one model each.

    >>> models_verdict("A", 0.01)
    'these two models: A is better on other images of this kind; a single seed says no more'
    >>> models_verdict("A", 0.2, single=False)
    'these runs: no difference found on other images of this kind; a single seed says no more'
    """
    which = "these two models" if single else "these runs"
    if math.isnan(p_images):
        return f"{which} are not tested: predictions do not tell the metric, and there is a single seed"
    told = f"{better} is better" if p_images < SIGNIFICANCE else "no difference found"
    return f"{which}: {told} on other images of this kind; a single seed says no more"


def _scores(groups: Sequence[Group], metric: str) -> dict[str, Floats]:
    """What each unit adds to the metric of each group's runs, (U, S) by its name.

    Rows are the same units where groups judged the same images.
    """
    found: dict[str, Floats] = {}
    rest = list(groups)
    while rest:
        alike = [group for group in rest if same_images(rest[0], group)]
        rest = [group for group in rest if group not in alike]
        outcomes = [member.outcome for group in alike for member in group.members]
        scores = unit_scores(outcomes, metric, group_of_image(outcomes))
        if scores is None:
            continue
        ends = np.cumsum([len(group.members) for group in alike])
        for group, columns in zip(alike, np.split(scores, ends[:-1], axis=1), strict=True):
            found[group.name] = columns
    return found


def _compare_two(
    first: Group,
    second: Group,
    metric: str,
    scores: dict[str, Floats],
    minimized: bool,
    rope: float | None,
) -> Pair:
    one, other = first.values, second.values
    paired = paired_values(first, second)
    shared = [1 / (group.folds - 1) if group.folds else 0.0 for group in (first, second)]
    same_folds = bool(first.folds) and first.folds == second.folds and len(paired) == len(one) == len(other)
    if same_folds:
        p_seeds = folds_p_value([a - b for a, b in paired], shared[0])
    else:
        p_seeds = seeds_p_value(one, other, (shared[0], shared[1]))
    over_images, p_images, both = None, math.nan, None
    image_groups = groups_of_images(first, second)
    enough = image_groups is None or image_groups.are_enough
    if same_images(first, second) and first.name in scores and enough:
        ours, theirs = scores[first.name], scores[second.name]
        freedom = None if image_groups is None else image_groups.freedom
        differences = np.nanmean(ours, axis=1) - np.nanmean(theirs, axis=1)
        over_images = difference_interval(differences, freedom)
        p_images = difference_p_value(differences, freedom)
        if _counts_images(first, metric) and image_groups is None:  # McNemar's takes images for independent
            p_images = mcnemar(first.right, second.right)
        if min(len(one), len(other)) > 1:
            both = two_way_test((one, other), (ours, theirs), (shared[0], shared[1]), same_folds, freedom)
    practical = None
    if rope is not None and len(paired) > 1:
        sign = -1 if minimized else 1
        practical = practical_difference([sign * a for a, _ in paired], [sign * b for _, b in paired], rope)
    return Pair(
        first,
        second,
        difference=float(np.mean(one) - np.mean(other)),
        over_both=None if both is None else both.interval,
        over_images=over_images,
        p=math.nan if both is None else both.p_value,
        p_images=p_images,
        p_seeds=p_seeds,
        needed=None if both is None else both.needed(),
        practical=practical,
        image_groups=image_groups,
    )


def paired_values(first: Group, second: Group) -> list[tuple[float, float]]:
    """The metric of both for each seed and fold that both have."""
    others = {member.replicate: member.value for member in second.members}
    return [
        (member.value, others[member.replicate]) for member in first.members if member.replicate in others
    ]


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Each kind of p-value corrected for how many of its kind there are."""
    kinds = [
        holm([pair.p for pair in pairs]),
        holm([pair.p_images for pair in pairs]),
        holm([pair.p_seeds for pair in pairs]),
    ]
    return [
        replace(pair, p=p, p_images=p_images, p_seeds=p_seeds)
        for pair, p, p_images, p_seeds in zip(pairs, *kinds, strict=True)
    ]
