"""What a comparison finds: each group's mean with its intervals, each pair's difference with its tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from experiments.arrays import Floats
from experiments.compare.groups import Group
from experiments.compare.scores import replicates
from experiments.statistics import (
    SIGNIFICANCE,
    Interval,
    bootstrap_p_value,
    folds_interval,
    folds_p_value,
    holm,
    mcnemar,
    percentile_interval,
    practical_difference,
    seeds_needed,
    seeds_p_value,
    t_interval,
)

COUNTED = ("accuracy", "exact_match")  # metrics that are the share of images McNemar's test counts


@dataclass(frozen=True)
class Summary:
    """One group's metric.

    Attributes:
        group: The runs.
        mean: Over its runs.
        deviation: Standard deviation over runs; NaN of a single one.
        over_seeds: 95 % interval of the mean, were other seeds drawn; of folds corrected for what they share.
        over_images: 95 % interval, were other images judged; None where predictions don't tell the metric.
    """

    group: Group
    mean: float
    deviation: float
    over_seeds: Interval
    over_images: Interval | None


@dataclass(frozen=True)
class Pair:
    """The difference between two groups, of which the first ranks higher; p-values are corrected by Holm.

    Attributes:
        first: Ranks higher.
        second: Ranks lower.
        difference: First mean less second mean.
        over_images: 95 % interval of the difference, paired on the same images; None where they differ.
        p_mcnemar: That both are right equally often on other images; NaN where it does not apply.
        p_bootstrap: That other images would show no difference; NaN where they differ.
        p_seeds: That other seeds would show no difference (Welch; of folds Nadeau and Bengio); NaN where
            the spread is not known.
        seeds_needed: Of each, to find a difference of this size four times in five; None where not known.
        practical: Probabilities that the first is better, that both are the same, that the second is.
    """

    first: Group
    second: Group
    difference: float
    over_images: Interval | None
    p_mcnemar: float
    p_bootstrap: float
    p_seeds: float
    seeds_needed: int | None
    practical: tuple[float, float, float] | None = None

    @property
    def p_images(self) -> float:
        """McNemar's where it applies, which is exact, else the bootstrap's."""
        return self.p_bootstrap if math.isnan(self.p_mcnemar) else self.p_mcnemar

    @property
    def verdict(self) -> str:
        """What can be said, in a sentence."""
        return verdict(self.first.name, self.p_images, self.p_seeds, self.seeds_needed)


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
    summaries: tuple[Summary, ...]
    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]

    @property
    def groups(self) -> list[Group]:
        return [summary.group for summary in self.summaries]

    @property
    def split(self) -> str:
        return self.metric.partition("/")[0]

    def different(self) -> NDArray[np.bool_]:
        """Which two groups, by rank, are told apart by images, and by seeds where there are several."""
        places = {group.name: place for place, group in enumerate(self.groups)}
        told = np.zeros((len(places), len(places)), dtype=bool)
        for pair in self.pairs:
            known = [p_value for p_value in (pair.p_images, pair.p_seeds) if not math.isnan(p_value)]
            one, other = places[pair.first.name], places[pair.second.name]
            told[one, other] = told[other, one] = bool(known) and max(known) < SIGNIFICANCE
        return told


def compare(
    groups: Sequence[Group], metric: str, minimized: bool, rope: float | None = None
) -> tuple[list[Summary], list[Pair]]:
    """Each group by itself, then each two; groups are ranked already.

    Args:
        groups: The best mean first.
        metric: Without its split.
        minimized: Whether less is better.
        rope: Difference that does not matter in practice, for the Bayesian test; None leaves it out.
    """
    drawn = _replicates(groups, metric)  # of the mean of each group's runs
    summaries = [summarize(group, drawn.get(group.name)) for group in groups]
    pairs = [_compare_two(*two, metric, drawn, minimized, rope) for two in combinations(groups, 2)]
    return summaries, _corrected(pairs)


def summarize(group: Group, drawn: Floats | None) -> Summary:
    """A group by itself, with bootstrap replicates of its mean, (R,)."""
    values = group.values
    over_seeds = folds_interval(values, 1 / (group.folds - 1)) if group.folds else t_interval(values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    over_images = None if drawn is None else percentile_interval(drawn)
    return Summary(group, float(np.mean(values)), deviation, over_seeds, over_images)


def same_images(one: Group, other: Group) -> bool:
    """Whether two groups judged the same images, by id, of the same classes and with the same targets."""
    return one.images == other.images and one.members[0].class_names == other.members[0].class_names


def verdict(better: str, p_images: float, p_seeds: float, needed: int | None) -> str:
    """What two tests say together, one over images and one over seeds.

    >>> verdict("A", 0.001, 0.01, 3)
    'A is better'
    >>> verdict("A", 0.001, 0.3, 12)
    'these runs differ, but seeds vary as much; 12 seeds of each would tell'
    >>> verdict("A", 0.4, 0.3, None)
    'no difference found'
    >>> verdict("A", 0.001, math.nan, None)
    'these runs differ; of the configurations a single seed tells nothing'
    """
    if math.isnan(p_images):
        if math.isnan(p_seeds):
            return "not tested: no images in common, and a single seed"
        told = (
            f"{better} is better over seeds" if p_seeds < SIGNIFICANCE else "no difference found over seeds"
        )
        return f"{told}; not tested on images"
    on_images = p_images < SIGNIFICANCE
    if math.isnan(p_seeds):
        if on_images:
            return "these runs differ; of the configurations a single seed tells nothing"
        return "no difference found; a single seed could hardly show one"
    more = f"; {needed:,} seeds of each would tell" if needed is not None else ""
    if p_seeds < SIGNIFICANCE:
        few = "" if on_images else " on these images, too few to say so of others"
        return f"{better} is better{few}"
    return f"these runs differ, but seeds vary as much{more}" if on_images else f"no difference found{more}"


def _replicates(groups: Sequence[Group], metric: str) -> dict[str, Floats]:
    """Of the mean of each group's runs, (R,) by its name; those that judged the same images are paired."""
    found: dict[str, Floats] = {}
    rest = list(groups)
    while rest:
        alike = [group for group in rest if same_images(rest[0], group)]
        rest = [group for group in rest if group not in alike]
        drawn = replicates([member.outcome for group in alike for member in group.members], metric)
        if drawn is None:
            continue
        ends = np.cumsum([len(group.members) for group in alike])
        for group, columns in zip(alike, np.split(drawn, ends[:-1], axis=1), strict=True):
            found[group.name] = np.nanmean(columns, axis=1)
    return found


def _compare_two(
    first: Group,
    second: Group,
    metric: str,
    drawn: dict[str, Floats],
    minimized: bool,
    rope: float | None,
) -> Pair:
    over_images, p_mcnemar, p_bootstrap = None, math.nan, math.nan
    if same_images(first, second):
        if first.name in drawn:
            differences = drawn[first.name] - drawn[second.name]
            over_images, p_bootstrap = percentile_interval(differences), bootstrap_p_value(differences)
        if metric in COUNTED and (metric == "exact_match" or first.members[0].outcome.targets.ndim == 1):
            p_mcnemar = mcnemar(first.right, second.right)
    one, other = first.values, second.values
    paired = paired_values(first, second)
    if first.folds and first.folds == second.folds and len(paired) == len(one) == len(other):
        p_seeds = folds_p_value([a - b for a, b in paired], 1 / (first.folds - 1))
    else:
        shared = [1 / (group.folds - 1) if group.folds else 0.0 for group in (first, second)]
        p_seeds = seeds_p_value(one, other, (shared[0], shared[1]))
    practical = None
    if rope is not None and len(paired) > 1:
        sign = -1 if minimized else 1
        practical = practical_difference([sign * a for a, _ in paired], [sign * b for _, b in paired], rope)
    return Pair(
        first,
        second,
        float(np.mean(one) - np.mean(other)),
        over_images,
        p_mcnemar,
        p_bootstrap,
        p_seeds,
        None if first.folds or second.folds else seeds_needed(one, other),  # folds can't be added
        practical,
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
        holm([pair.p_mcnemar for pair in pairs]),
        holm([pair.p_bootstrap for pair in pairs]),
        holm([pair.p_seeds for pair in pairs]),
    ]
    return [
        replace(pair, p_mcnemar=exact, p_bootstrap=drawn, p_seeds=seeds)
        for pair, exact, drawn, seeds in zip(pairs, *kinds, strict=True)
    ]
