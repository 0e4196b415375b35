"""Intervals and tests over images that come in groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .array_types import Floats
from .significance import CONFIDENCE, Interval
from .stored_predictions import StoredPredictions

MIN_GROUPS = 5  # fewer give no interval and no test: docs/explanation/groups.md has the simulation
UNKNOWN = Interval(-math.inf, math.inf)


@dataclass(frozen=True)
class Groups:
    """To which group each of N images belongs.

    Attributes:
        places: The group of each image, counted from 0, (N,).
        sizes: Images of each group, (G,).
        grouped_by: What the groups are, the column of the data.
    """

    places: NDArray[np.int64]
    sizes: NDArray[np.int64]
    grouped_by: str | None = None

    @classmethod
    def of(cls, names: ArrayLike, grouped_by: str | None = None) -> Groups:
        """From the name of each image's group, (N,).

        >>> Groups.of(["ann", "bob", "ann"]).sizes.tolist()
        [2, 1]
        """
        _, places, sizes = np.unique(np.asarray(names), return_inverse=True, return_counts=True)
        return cls(places.reshape(-1), sizes, grouped_by)

    def at(self, members: NDArray[np.bool_]) -> Groups:
        """Returns the groups of some of the images, chosen by a mask (N,)."""
        return Groups.of(self.places[members], self.grouped_by)

    @property
    def weights(self) -> Floats:
        """The share of the images that each group has, (G,)."""
        return np.asarray(self.sizes / self.sizes.sum())

    @property
    def are_enough(self) -> bool:
        """Whether an interval can be told: the spread of fewer groups is hardly known."""
        return len(self.sizes) >= MIN_GROUPS

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of a variance between the groups, by Satterthwaite (Bell and McCaffrey 2002).

        One less than there are groups where they are equally large; fewer where some are much larger.

        >>> round(Groups.of(["a", "a", "b", "b", "c", "c"]).freedom, 6)
        2.0
        >>> Groups.of(["a"] * 10 + ["b", "c"]).freedom < 1.5
        True
        """
        weights = self.weights
        if len(weights) < 2:
            return 0.0
        off = weights**2 / (1 - weights)
        total = float((weights**2).sum()) + float(off.sum()) ** 2 - float((off**2).sum())
        return max(1 / total, 1.0)

    def told(self) -> str:
        """What intervals count, or why there are none.

        >>> Groups.of(["a", "b", "c", "d", "e", "e"], "patient").told()
        '95 % intervals count 5 groups (patient), not 6 images'
        >>> Groups.of(["a", "b", "b"], "patient").told()
        'no interval or test over images: there are 2 groups (patient), and fewer than 5 do not tell...'
        """
        number, kind = len(self.sizes), self.grouped_by or "group"
        if self.are_enough:
            return f"95 % intervals count {number:,} groups ({kind}), not {int(self.sizes.sum()):,} images"
        counted = "is 1 group" if number == 1 else f"are {number} groups"
        return (
            f"no interval or test over images: there {counted} ({kind}), and "
            f"fewer than {MIN_GROUPS} do not tell how groups vary"
        )


def outcome_groups(outcome: StoredPredictions) -> Groups | None:
    """Returns the groups of one run's images; None where they have none."""
    return None if outcome.groups is None else Groups.of(outcome.groups, outcome.grouped_by)


def group_of_image(outcomes: Sequence[StoredPredictions]) -> dict[str, str] | None:
    """The group of each image that any of several runs judged, by the image's id.

    Groups are the first's that has some, as runs of the same images have the same. None where no run has any,
    or an image is without one.
    """
    known: dict[str, str] = {}
    for outcome in outcomes:
        if outcome.groups is not None:
            for name, group in zip(outcome.ids.tolist(), outcome.groups.tolist(), strict=True):
                known.setdefault(name, group)
    complete = known and all(name in known for outcome in outcomes for name in outcome.ids.tolist())
    return known if complete else None


def groups_by_id(outcomes: Sequence[StoredPredictions], group_of: Mapping[str, str]) -> Groups:
    """The same for each image, in the order of their ids."""
    ids = np.unique(np.concatenate([outcome.ids for outcome in outcomes]))
    columns = [outcome.grouped_by for outcome in outcomes if outcome.grouped_by is not None]
    return Groups.of([group_of[name] for name in ids.tolist()], columns[0] if columns else None)


def unrecorded_groups(outcomes: Sequence[StoredPredictions]) -> str | None:
    """A caveat, where the data has groups that the records of the predictions lack; else None."""
    lacking = {outcome.grouped_by for outcome in outcomes if outcome.grouped_by and outcome.groups is None}
    if not lacking or group_of_image(outcomes) is not None:
        return None
    return (
        f"the data is in groups ({', '.join(sorted(lacking))}) that stand in no record of these predictions: "
        "intervals take images of one group for independent, and may be much too narrow; train again to "
        "record the groups"
    )


# What each group adds ---------------------------------------------------------------------------


def linearized(scores: Floats, members: NDArray[np.int64], num_units: int) -> Floats:
    """Returns what each unit adds to a mean of image scores (N,), (U,); a single image adds its score."""
    if len(np.unique(members)) == len(members):
        own = np.full(num_units, np.nan)
        own[members] = scores
        return own
    mean = float(scores.mean())
    sizes = np.bincount(members, minlength=num_units)
    sums = np.bincount(members, scores.astype(np.float64) - mean, minlength=num_units)
    units = int((sizes > 0).sum())
    changes = corrected(sums * units / len(scores), sizes)
    return np.asarray(np.where(sizes > 0, mean + changes, np.nan))


def corrected(changes: Floats, sizes: NDArray[np.int64]) -> Floats:
    """What each unit changes, (U,), so that their variance is CR2's (Bell and McCaffrey 2002).

    A large unit draws the mean to itself, and its distance from it is too small.
    """
    there = sizes > 0
    weights, units = sizes / sizes.sum(), int(there.sum())
    if units < 2:
        return changes
    scaled = np.where(there, changes * np.sqrt((1 - 1 / units) / (1 - weights)), 0.0)
    return np.asarray(scaled - np.where(there, scaled.sum() / units, 0.0))


# Shares of images ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupedProportion:
    """The share of images that are right, and how much it tells of other groups.

    Attributes:
        value: The share.
        changes: What each group adds to its distance from the true one, (G,), at the scale of CR2.
        effective: Independent images that would tell as much.
        freedom: Degrees of freedom.
    """

    value: float
    changes: Floats
    effective: float
    freedom: float

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Wilson's (1927), with Student's quantile (Korn and Graubard 1998)."""
        squared = float(stats.t.ppf((1 + confidence) / 2, self.freedom)) ** 2 / self.effective
        middle = (self.value + squared / 2) / (1 + squared)
        half = math.sqrt(squared * self.value * (1 - self.value) + squared**2 / 4) / (1 + squared)
        return Interval(max(middle - half, 0.0), min(middle + half, 1.0))


def share_of_groups(scores: Floats, groups: Groups) -> GroupedProportion:
    """Returns the mean of scores in [0, 1], (N,), of images in two or more groups, and its variance.

    The variance is CR2 of Bell and McCaffrey (2002). Few mistakes in few groups hardly tell it: there are no
    more degrees of freedom than groups with mistakes, counted by Kish's effective number. Without a mistake
    each group counts as one image, which is right for groups that are right or wrong as a whole.
    """
    weights, size = groups.weights, len(scores)
    value = float(np.mean(scores, dtype=np.float64))
    changes = np.bincount(groups.places, scores - value) / size / np.sqrt(1 - weights)
    spread, variance = value * (1 - value), float(changes @ changes)
    if spread < 1e-12 or variance == 0:
        return GroupedProportion(value, changes, 1 / float(weights @ weights), groups.freedom)
    rarer = np.bincount(groups.places, scores if value < 0.5 else 1 - scores)
    erring = float(rarer.sum()) ** 2 / float(rarer @ rarer)
    return GroupedProportion(value, changes, spread / variance, min(groups.freedom, erring))


def grouped_share_interval(scores: Floats, groups: Groups) -> Interval:
    """95 % interval of the mean of scores in [0, 1], (N,), were other groups drawn; infinite of few groups.

    >>> right = np.repeat([1.0, 1, 1, 0, 1, 1, 0, 1], 10)
    >>> low, high = grouped_share_interval(right, Groups.of(np.repeat(np.arange(8), 10)))
    >>> f"{low:.2f} {high:.2f}"
    '0.16 0.98'
    """
    return share_of_groups(scores, groups).interval() if groups.are_enough else UNKNOWN


@dataclass(frozen=True)
class Gap:
    """The difference between two shares of images, which may have groups in common.

    Attributes:
        value: First less second.
        within: Its 95 % interval, from those of both (MOVER, Zou and Donner 2008); infinite of few groups.
        p: That there is none; NaN of few groups.
    """

    value: float
    within: Interval = UNKNOWN
    p: float = math.nan


def gap_between(scores: Floats, groups: Groups, members: NDArray[np.bool_]) -> Gap:
    """Between the mean of scores in [0, 1], (N,), of the members and of all others, both of them some."""
    parts = [groups.at(mask) for mask in (members, ~members)]
    value = float(scores[members].mean() - scores[~members].mean())
    if not all(part.are_enough for part in parts):
        return Gap(value)
    one, other = (
        share_of_groups(scores[mask], part) for mask, part in zip((members, ~members), parts, strict=True)
    )
    spread = [np.zeros(len(groups.sizes)) for _ in range(2)]
    for column, mask, share in zip(spread, (members, ~members), (one, other), strict=True):
        column[np.unique(groups.places[mask])] = share.changes
    scale = math.sqrt(float(spread[0] @ spread[0]) * float(spread[1] @ spread[1]))
    shared = float(spread[0] @ spread[1]) / scale if scale else 0.0  # the correlation of both
    (low, high), (other_low, other_high) = one.interval(), other.interval()
    below, above = one.value - low, high - one.value
    other_below, other_above = other.value - other_low, other_high - other.value
    down = below**2 + other_above**2 - 2 * shared * below * other_above
    up = above**2 + other_below**2 - 2 * shared * above * other_below
    within = Interval(value - math.sqrt(max(down, 0.0)), value + math.sqrt(max(up, 0.0)))
    pooled = float(scores.mean()) * (1 - float(scores.mean()))
    errors = pooled / one.effective, pooled / other.effective  # as if there were no gap
    variance = sum(errors) - 2 * shared * math.sqrt(errors[0] * errors[1])
    if value == 0 or variance <= 0:
        return Gap(value, within, 1.0)
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / one.freedom + errors[1] ** 2 / other.freedom)
    return Gap(value, within, float(2 * stats.t.sf(abs(value) / math.sqrt(variance), freedom)))
