"""Hash-based hold-out and k-fold assignment."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..messages import first_few
from .stratification import Membership, fill_empty_folds, iterative_stratification, judge_and_learn_each_class


def hash_fraction(purpose: str, seed: int, sample_id: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments, on every machine.

    >>> round(hash_fraction("val", 0, "train/00001"), 4)
    0.7702
    >>> round(hash_fraction("test", 0, "train/00001"), 4)
    0.2692
    """
    digest = hashlib.blake2b(f"{purpose}\0{seed}\0{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def hold_out(
    ids: Sequence[str],
    targets: NDArray[np.integer],
    fraction: float,
    *,
    purpose: str,
    seed: int,
    groups: Sequence[str] | None = None,
) -> NDArray[np.bool_]:
    """Marks the samples to hold out: those whose hash lies below `fraction`.

    Each sample's place depends on its own id alone, so adding images moves no other, and every class
    is held out at the same rate. Excepted are classes so small that chance leaves them on one side: one
    without a held-out sample gives the one with the lowest hash, so that no class goes unjudged; one held
    out whole keeps the one with the highest, so that no class goes unlearned, and a class of one sample
    keeps it. A sample added to such a class may send the one that was moved back, or take its place; it
    moves no other. At a fraction of 0.1 that is one class of 20 samples in eight, and of 50 in 200.

    With groups it is the group's hash that decides, and whole groups that are given or kept, with their
    samples of other classes. Several labels without groups are spread by `iterative_stratification`:
    balancing rare labels needs to know all images, so there an added image may move any others.

    Args:
        ids: N sample ids.
        targets: Class indices (N,), or labels (N, K) of 0 and 1.
        fraction: Expected share held out, in [0, 1).
        purpose: What for: draws for another purpose are independent, so that what is held out for
            validation from what testing left is not always the same corner.
        seed: Another seed holds out others.
        groups: N names of groups (patients, series, ...), none of which may lie on both sides.

    Returns:
        Mask (N,), true where held out.

    Raises:
        ValueError: Lengths differ, or labels are other than 0 and 1.

    >>> ids = [f"image{i}" for i in range(2000)]
    >>> mask = hold_out(ids, np.arange(2000) % 2, 0.1, purpose="val", seed=0)
    >>> bool(abs(mask.mean() - 0.1) < 0.02)
    True
    >>> fewer = hold_out(ids[:1000], np.arange(1000) % 2, 0.1, purpose="val", seed=0)
    >>> bool((fewer == mask[:1000]).all())
    True
    >>> hold_out(list("abcd"), np.zeros(4, int), 0.5, purpose="val", seed=0, groups=list("xxyy")).tolist()
    [True, True, False, False]
    """
    _check(ids, targets, groups)
    if fraction == 0:
        return np.zeros(len(ids), dtype=bool)
    hashes, unit_of = _units(ids, groups, purpose, seed)
    if targets.ndim == 2 and groups is None:
        held_out = iterative_stratification(targets, [1 - fraction, fraction], hashes) == 1
    else:
        held_out = hashes < fraction
    return judge_and_learn_each_class(held_out, hashes, Membership.of(targets, unit_of))[unit_of]


def assign_folds(
    ids: Sequence[str],
    targets: NDArray[np.integer],
    folds: int,
    *,
    seed: int,
    groups: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """The fold of each sample for cross-validation, by its hash, or its group's.

    As in `hold_out`, adding images moves no other, but for several labels without groups and for small
    classes. A class with at least `folds` samples (groups) is in every fold: a fold that chance leaves
    without it is given one from the fullest. Only where that was needed may a sample added to the class
    move others of it (with groups, whole groups): back, or in place of those that were given.

    Args:
        ids: N sample ids.
        targets: Class indices (N,), or labels (N, K) of 0 and 1.
        folds: Number of folds, at least 2.
        seed: Another seed gives other folds.
        groups: N names of groups, each of which lies in one fold.

    Returns:
        Fold (N,), 0 to `folds` - 1; none is empty.

    Raises:
        ValueError: Fewer samples or groups than folds, or fewer than 2 folds; see also `hold_out`.

    >>> ids = [f"image{i}" for i in range(1000)]
    >>> fold = assign_folds(ids, np.arange(1000) % 2, 5, seed=0)
    >>> bool((abs(np.bincount(fold) - 200) < 50).all())
    True
    >>> assign_folds(["a", "b"], np.array([0, 0]), 3, seed=0)
    Traceback (most recent call last):
    ValueError: 3 folds need at least 3 samples, got 2; ask for at most 2 folds
    """
    _check(ids, targets, groups)
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}; 5 and 10 are customary")
    hashes, unit_of = _units(ids, groups, "fold", seed)
    if len(hashes) < folds:
        noun = "samples" if groups is None else "groups"
        advice = f"ask for at most {len(hashes)} folds" if len(hashes) > 1 else f"add {noun}"
        raise ValueError(f"{folds} folds need at least {folds} {noun}, got {len(hashes)}; {advice}")
    if targets.ndim == 2 and groups is None:
        fold_of = iterative_stratification(targets, [1 / folds] * folds, hashes)
    else:
        fold_of = (hashes * folds).astype(np.int64).clip(max=folds - 1)
    return fill_empty_folds(fold_of, folds, hashes, Membership.of(targets, unit_of))[unit_of]


def keep(
    ids: Sequence[str],
    targets: NDArray[np.integer],
    *,
    seed: int,
    fraction: float | None,
    per_class: int | None,
) -> NDArray[np.bool_]:
    """Marks a subset to learn from, for learning curves: a larger one contains each smaller one.

    Args:
        ids: N sample ids.
        targets: Class indices (N,), or labels (N, K) of 0 and 1.
        seed: Another seed keeps others.
        fraction: Keep the samples whose hash lies below it, in (0, 1], and of each class at least one.
        per_class: Keep this many of each class, those with the lowest hashes; a smaller class whole.

    Returns:
        Mask (N,), true where kept; all where neither is given.

    Raises:
        ValueError: Both are given, one is out of range, or `per_class` meets several labels.

    >>> ids = [f"image{i}" for i in range(100)]
    >>> targets = np.arange(100) % 4
    >>> np.bincount(targets[keep(ids, targets, seed=0, fraction=None, per_class=3)]).tolist()
    [3, 3, 3, 3]
    >>> tenth, fifth = (keep(ids, targets, seed=0, fraction=f, per_class=None) for f in (0.1, 0.2))
    >>> bool((tenth <= fifth).all())
    True
    """
    _check(ids, targets, None)
    if fraction is not None and per_class is not None:
        raise ValueError(f"give fraction or per_class, got both ({fraction} and {per_class}); drop one")
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}; 1 keeps all")
    if per_class is not None and per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    if per_class is not None and targets.ndim == 2:
        raise ValueError(
            f"per_class needs one class per image, got {targets.shape[1]} labels each; use fraction"
        )
    if fraction is None and per_class is None:
        return np.ones(len(ids), dtype=bool)
    hashes, unit_of = _units(ids, None, "keep", seed)
    kept = hashes < (fraction or 0)
    for members in Membership.of(targets, unit_of).units_by_class():
        kept[members[np.argsort(hashes[members], kind="stable")[: per_class or 1]]] = True
    return kept


def split_problems(
    ids_by_split: Mapping[str, Sequence[str]],
    targets_by_split: Mapping[str, NDArray[np.integer]],
    class_names: Sequence[str],
) -> list[str]:
    """What no split may be, one sentence each, of each kind the first few; empty where nothing is wrong.

    Args:
        ids_by_split: Sample ids of each split, by its name ("train", "val", "test").
        targets_by_split: Class indices (N,), or labels (N, K) of 0 and 1, of each split.
        class_names: Names of the K classes.

    >>> targets = {"train": np.array([0, 0]), "val": np.array([1, 0])}
    >>> split_problems({"train": ["a", "b"], "val": ["c", "a"]}, targets, ["cat", "dog"])
    ['Class dog is in val (1 sample) but not in train.', 'Id a occurs 2 times (train, val).']
    """
    counts = {split: _class_counts(t, len(class_names)) for split, t in targets_by_split.items()}
    classes = []
    for label, name in enumerate(class_names):
        sizes = {split: int(count[label]) for split, count in counts.items()}
        if not any(sizes.values()):
            classes.append(f"Class {name} is empty.")
        elif sizes.get("train") == 0:
            classes += [
                f"Class {name} is in {split} ({size} sample{'s' * (size > 1)}) but not in train."
                for split, size in sizes.items()
                if size
            ]
    repeated = [
        f"Id {sample_id} occurs {len(splits)} times ({', '.join(dict.fromkeys(splits))})."
        for sample_id, splits in _places(ids_by_split).items()
        if len(splits) > 1
    ]
    return [
        *first_few(classes, f"In all, {len(classes)} problems with classes."),
        *first_few(repeated, f"In all, {len(repeated)} ids occur several times."),
    ]


def split_warnings(
    sizes: Mapping[str, int], num_classes: int, groups: Mapping[str, Sequence[str]]
) -> list[str]:
    """What a split had better not be, a sentence each: small, or a group on both sides (the first few).

    Args:
        sizes: Samples in each split.
        num_classes: K.
        groups: Group of each sample of each split, where there are groups.

    >>> split_warnings({"train": 90, "val": 2}, 3, {"train": ["x", "y"], "val": ["x"]})
    ['Split val has 2 samples for 3 classes.', 'Group x straddles splits (1 in train, 1 in val).']
    """
    warnings = [
        f"Split {split} has {size} sample{'s' * (size != 1)} for {num_classes} classes."
        for split, size in sizes.items()
        if size < num_classes
    ]
    torn = []
    for group, splits in _places(groups).items():
        if len(set(splits)) > 1:
            where = ", ".join(f"{count} in {split}" for split, count in Counter(splits).items())
            torn.append(f"Group {group} straddles splits ({where}).")
    return [*warnings, *first_few(torn, f"In all, {len(torn)} groups straddle splits.")]


def _places(names_by_split: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The split of each occurrence of each name."""
    places: dict[str, list[str]] = {}
    for split, names in names_by_split.items():
        for name in names:
            places.setdefault(name, []).append(split)
    return places


def _class_counts(targets: NDArray[np.integer], num_classes: int) -> NDArray[np.integer]:
    counts: NDArray[np.integer] = (
        targets.sum(0) if targets.ndim == 2 else np.bincount(targets, minlength=num_classes)
    )
    return counts


def _units(
    ids: Sequence[str], groups: Sequence[str] | None, purpose: str, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Hashes (U,) of what moves as a whole, samples or groups, and the samples' units (N,)."""
    if groups is None:
        names, unit_of = list(ids), np.arange(len(ids))
    else:
        names = sorted(set(groups))
        index = {name: position for position, name in enumerate(names)}
        unit_of = np.array([index[group] for group in groups], dtype=np.int64)
    return np.array([hash_fraction(purpose, seed, name) for name in names], dtype=np.float64), unit_of


def _check(ids: Sequence[str], targets: NDArray[np.integer], groups: Sequence[str] | None) -> None:
    if len(targets) != len(ids):
        raise ValueError(f"targets must be as many as ids, got {len(targets)} for {len(ids)}")
    if groups is not None and len(groups) != len(ids):
        raise ValueError(f"groups must be as many as ids, got {len(groups)} for {len(ids)}")
    if targets.ndim == 2 and not np.isin(targets, (0, 1)).all():
        raise ValueError(f"labels (N, K) must be 0 or 1, got {np.setdiff1d(targets, (0, 1)).tolist()[:5]}")
