"""Every class on every side of a split: iterative stratification, and the fewest moves that fill a gap.

A unit is what moves as a whole: a sample, or a group of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def iterative_stratification(
    targets: NDArray[np.integer], shares: Sequence[float], hashes: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Deals multi-label samples to subsets such that each label is spread by the shares.

    Algorithm 1 of Sechidis, Tsoumakas and Vlahavas (2011), "On the stratification of multi-label data":
    the label with the fewest samples left is dealt first, each sample to the subset that wants most of
    that label, then to the one that wants most samples. Where the article draws at random (the order of
    samples, the last ties) the hash and the lowest index decide, so the order of files does not matter.

    Args:
        targets: Labels (N, K) of 0 and 1.
        shares: Share of each of the S subsets; their sum is 1.
        hashes: Numbers (N,) that give the order.

    Returns:
        Index of each sample's subset (N,).

    >>> targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [1, 1], [0, 0], [0, 0]])
    >>> subset = iterative_stratification(targets, [0.5, 0.5], np.linspace(0, 0.9, 8))
    >>> [targets[subset == index].sum(0).tolist() for index in (0, 1)]
    [[2, 2], [2, 2]]
    """
    positive = targets.astype(bool)  # (N, K)
    by_hash = np.argsort(hashes, kind="stable")
    wanted = np.multiply.outer(np.asarray(shares), positive.sum(0).astype(np.float64))  # (S, K)
    wanted_in_all = np.asarray(shares) * len(targets)  # (S,)
    subset_of = np.full(len(targets), -1)
    while (unassigned := subset_of[by_hash] < 0).any():
        left = by_hash[unassigned]
        counts = positive[left].sum(0)
        label = int(np.where(counts > 0, counts, len(targets) + 1).argmin()) if counts.any() else None
        for sample in left if label is None else left[positive[left, label]]:
            wishes = wanted_in_all if label is None else wanted[:, label]
            wanting_most = np.flatnonzero(wishes == wishes.max())
            subset = wanting_most[wanted_in_all[wanting_most].argmax()]
            subset_of[sample] = subset
            wanted[subset] -= positive[sample]
            wanted_in_all[subset] -= 1
    return subset_of


@dataclass(frozen=True)
class Membership:
    """Which units hold samples of which classes: P pairs, each once, in the order of units."""

    units: NDArray[np.int64]  # (P,)
    classes: NDArray[np.int64]  # (P,), 0 to num_classes - 1
    num_classes: int

    @classmethod
    def of(cls, targets: NDArray[np.integer], unit_of: NDArray[np.int64]) -> Membership:
        """Pairs of class indices (N,), or labels (N, K) of 0 and 1, and the samples' units (N,).

        >>> Membership.of(np.array([5, 7, 7]), np.array([0, 0, 1])).classes.tolist()
        [0, 1, 1]
        """
        if targets.ndim == 2:
            samples, classes = np.nonzero(targets)
            num_classes = targets.shape[1]
        else:
            names, classes = np.unique(targets, return_inverse=True)
            samples, num_classes = np.arange(len(targets)), len(names)
        pairs = np.unique(unit_of[samples] * max(num_classes, 1) + classes)
        return cls(pairs // max(num_classes, 1), pairs % max(num_classes, 1), num_classes)

    def classes_in(self, unit: int) -> NDArray[np.int64]:
        """The classes of one unit."""
        start, stop = np.searchsorted(self.units, [unit, unit + 1])
        return self.classes[start:stop]

    def units_by_class(self) -> list[NDArray[np.int64]]:
        """The units that hold each class."""
        order = np.argsort(self.classes, kind="stable")
        ends = np.cumsum(np.bincount(self.classes, minlength=self.num_classes))
        return np.split(self.units[order], ends[:-1]) if self.num_classes else []


def judge_and_learn_each_class(
    held_out: NDArray[np.bool_], hashes: NDArray[np.float64], membership: Membership
) -> NDArray[np.bool_]:
    """Moves the fewest units such that each class is learned and, where that can be, judged.

    A class held out whole takes back the unit with the highest hash, if there is one that leaves no other
    class unjudged. After that, a class of which nothing is held out gives the unit with the lowest hash
    of those that leave no class unlearned, if any. So a unit's place depends on others where chance leaves a
    class on one side, and only there: one more unit of that class may undo the move, or be moved instead.

    Args:
        held_out: Mask (U,) of the units.
        hashes: The units' hashes (U,).
        membership: The units' classes.

    Returns:
        Mask (U,).

    >>> apart = Membership.of(np.array([0, 0, 1, 1]), np.arange(4))
    >>> everything = np.array([True, True, False, False])
    >>> judge_and_learn_each_class(everything, np.array([0.1, 0.2, 0.3, 0.4]), apart).tolist()
    [True, False, True, False]
    """
    held_out = held_out.copy()
    units_by_class = membership.units_by_class()
    sizes = np.array([len(units) for units in units_by_class])
    judged = np.bincount(membership.classes[held_out[membership.units]], minlength=membership.num_classes)
    for label, units in enumerate(units_by_class):
        if sizes[label] and judged[label] == sizes[label]:
            downwards = units[np.argsort(-hashes[units], kind="stable")]
            spares = (u for u in downwards if (judged[membership.classes_in(u)] > 1).all())
            unit = next(spares, downwards[0])
            held_out[unit] = False
            judged[membership.classes_in(unit)] -= 1
    learned = sizes - judged
    for label, units in enumerate(units_by_class):
        if sizes[label] > 1 and learned[label] == sizes[label]:
            upwards = units[np.argsort(hashes[units], kind="stable")]
            unit = next((u for u in upwards if (learned[membership.classes_in(u)] > 1).all()), None)
            if unit is not None:
                held_out[unit] = True
                learned[membership.classes_in(unit)] -= 1
    return held_out


def fill_empty_folds(
    fold_of: NDArray[np.int64], folds: int, hashes: NDArray[np.float64], membership: Membership
) -> NDArray[np.int64]:
    """Moves single units such that no fold lacks a class that has at least as many units as there are folds.

    The fold that has most of the class gives its unit with the highest hash, passing over those whose
    move would open as many gaps in other classes as it closes. Last, a fold still empty is given a unit. So
    a unit's place depends on others where chance leaves a gap, and only there: one more unit of that class
    may close it, or change which fold is the fullest, and those that were moved lie elsewhere.

    Args:
        fold_of: The units' folds (U,), U at least `folds`.
        folds: Number of folds.
        hashes: The units' hashes (U,).
        membership: The units' classes.

    Returns:
        The units' folds (U,).

    >>> one_class = Membership.of(np.zeros(4, dtype=np.int64), np.arange(4))
    >>> fill_empty_folds(np.array([0, 0, 0, 1]), 3, np.array([0.1, 0.2, 0.3, 0.6]), one_class).tolist()
    [0, 0, 2, 1]
    """
    fold_of = fold_of.copy()
    everything = membership.num_classes  # one more class, which all units have
    units_by_class = [*membership.units_by_class(), np.arange(len(fold_of))]
    counts = np.stack([np.bincount(fold_of[units], minlength=folds) for units in units_by_class])
    wide_enough = counts.sum(1) >= folds  # (num_classes + 1,)
    for label in np.flatnonzero(wide_enough):
        for empty in np.flatnonzero(counts[label] == 0):
            for unit in _donors(units_by_class[label], fold_of, counts[label], hashes):
                held = np.append(membership.classes_in(unit), everything)
                counted = held[wide_enough[held]]
                closed = (counts[counted, empty] == 0).sum()
                opened = (counts[counted, fold_of[unit]] == 1).sum()
                if closed > opened:
                    counts[held, fold_of[unit]] -= 1
                    counts[held, empty] += 1
                    fold_of[unit] = empty
                    break
    return fold_of


def _donors(
    units: NDArray[np.int64],
    fold_of: NDArray[np.int64],
    counts: NDArray[np.int64],
    hashes: NDArray[np.float64],
) -> Iterator[int]:
    """Units that their folds can spare: from the fullest fold, the highest hash first."""
    for fold in np.argsort(-counts, kind="stable"):
        if counts[fold] > 1:
            members = units[fold_of[units] == fold]
            yield from members[np.argsort(-hashes[members], kind="stable")].tolist()
