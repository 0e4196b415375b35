"""What is held out depends on ids, labels, purpose and seed; on nothing else."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from darkroom.datamodules.splitting.splitters import (
    assign_folds,
    hash_fraction,
    hold_out,
    keep,
    split_problems,
    split_warnings,
)

IDS = [f"image{index}" for index in range(6000)]
TARGETS = np.arange(6000) % 3
LABELS = (np.random.default_rng(0).random((6000, 4)) < [0.5, 0.1, 0.02, 0.002]).astype(np.int64)
GROUPS = [f"patient{index // 7}" for index in range(6000)]


def test_the_hash_never_changes() -> None:
    # Literal values: recorded splits must come out the same in every release.
    assert hash_fraction("val", 0, "image0") == 0.8281340829000321
    assert hash_fraction("test", 7, "train/00042") == 0.6452159112350432
    mask = hold_out(IDS[:60], TARGETS[:60], 0.2, purpose="val", seed=0)
    assert np.flatnonzero(mask).tolist() == [3, 4, 12, 20, 23, 34, 46, 54]


def test_the_hash_is_blake2b_of_purpose_seed_and_id() -> None:
    digest = hashlib.blake2b(b"val\x003\x00cat.png", digest_size=8).hexdigest()
    assert hash_fraction("val", 3, "cat.png") == int(digest, 16) / 2.0**64


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.9])
def test_each_class_is_held_out_at_the_same_rate(fraction: float) -> None:
    targets = np.repeat([0, 1, 2], [4000, 1500, 500])
    mask = hold_out(IDS, targets, fraction, purpose="val", seed=1)
    for label, size in enumerate([4000, 1500, 500]):
        four_deviations = 4 * np.sqrt(fraction * (1 - fraction) / size)
        assert mask[targets == label].mean() == pytest.approx(fraction, abs=four_deviations)


def test_adding_images_moves_no_other() -> None:
    before = hold_out(IDS[:3000], TARGETS[:3000], 0.1, purpose="val", seed=0)
    after = hold_out(IDS, TARGETS, 0.1, purpose="val", seed=0)
    np.testing.assert_array_equal(after[:3000], before)


@pytest.mark.parametrize("size", [5, 12, 40])
@pytest.mark.parametrize("purpose", ["val", "fold"])
def test_an_image_moves_others_of_its_class_alone_where_chance_left_a_side_without_it(purpose, size) -> None:
    def sides(ids: list[str], targets: NDArray[np.int64]) -> NDArray[np.int64]:
        if purpose == "fold":
            return assign_folds(ids, targets, 5, seed=0)
        return hold_out(ids, targets, 0.2, purpose="val", seed=0).astype(np.int64)

    targets = np.arange(3 * size) % 3
    moved = 0
    for number in range(100):
        ids = [f"{number}/{index}" for index in range(3 * size)]
        by_chance = {int(hash_fraction(purpose, 0, sample_id) * 5) for sample_id in ids[1::3]}
        gap = len(by_chance) < 5 if purpose == "fold" else len({fold == 0 for fold in by_chance}) < 2
        after = sides([*ids, f"{number}/added"], np.append(targets, 1))[:-1]
        others = np.flatnonzero(sides(ids, targets) != after)
        assert gap or not len(others)
        assert set(targets[others]) <= {1}
        assert purpose == "fold" or len(others) <= 1
        moved += len(others)
    assert size > 5 or moved > 0


def test_order_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(IDS))
    shuffled = hold_out([IDS[i] for i in order], TARGETS[order], 0.1, purpose="val", seed=0)
    np.testing.assert_array_equal(shuffled, hold_out(IDS, TARGETS, 0.1, purpose="val", seed=0)[order])


@pytest.mark.parametrize(("purpose", "seed"), [("test", 0), ("val", 1)])
def test_draws_for_another_purpose_or_seed_are_independent(purpose: str, seed: int) -> None:
    one = hold_out(IDS, TARGETS, 0.3, purpose="val", seed=0)
    other = hold_out(IDS, TARGETS, 0.3, purpose=purpose, seed=seed)
    assert (one & other).mean() == pytest.approx(0.09, abs=4 * np.sqrt(0.09 * 0.91 / 6000))


def test_a_fraction_of_zero_holds_out_none() -> None:
    assert not hold_out(IDS, TARGETS, 0.0, purpose="val", seed=0).any()


@pytest.mark.parametrize("seed", range(20))
def test_every_class_of_two_or_more_is_both_held_out_and_kept(seed: int) -> None:
    targets = np.repeat(np.arange(10), 2)
    for fraction in (0.01, 0.5, 0.99):
        mask = hold_out(IDS[:20], targets, fraction, purpose="val", seed=seed)
        assert mask.reshape(10, 2).sum(1).tolist() == [1] * 10


def test_the_forced_choice_goes_by_hash() -> None:
    low, high = sorted(IDS[:2], key=lambda sample_id: hash_fraction("val", 0, sample_id))
    for fraction in (1e-9, 1 - 1e-9):
        mask = hold_out([high, low], np.zeros(2, dtype=np.int64), fraction, purpose="val", seed=0)
        assert mask.tolist() == [False, True]


def test_a_class_of_one_sample_stays_in_train() -> None:
    # With fraction 0.9 nearly all hashes lie below it.
    mask = hold_out(IDS[:50], np.arange(50), 0.9, purpose="val", seed=0)
    assert not mask.any()


@pytest.mark.parametrize("targets", [TARGETS, LABELS], ids=["classes", "labels"])
@pytest.mark.parametrize("grouped", [False, True])
def test_nothing_depends_on_the_order_of_files(targets: NDArray[np.int64], grouped: bool) -> None:
    order = np.random.default_rng(1).permutation(len(IDS))
    ids, shuffled = [IDS[i] for i in order], targets[order]
    groups = GROUPS if grouped else None
    of_shuffled = [GROUPS[i] for i in order] if grouped else None
    np.testing.assert_array_equal(
        hold_out(ids, shuffled, 0.1, purpose="val", seed=0, groups=of_shuffled),
        hold_out(IDS, targets, 0.1, purpose="val", seed=0, groups=groups)[order],
    )
    np.testing.assert_array_equal(
        assign_folds(ids, shuffled, 5, seed=0, groups=of_shuffled),
        assign_folds(IDS, targets, 5, seed=0, groups=groups)[order],
    )
    np.testing.assert_array_equal(
        keep(ids, shuffled, seed=0, fraction=0.1, per_class=None),
        keep(IDS, targets, seed=0, fraction=0.1, per_class=None)[order],
    )


@pytest.mark.parametrize("targets", [TARGETS, LABELS], ids=["classes", "labels"])
def test_no_group_lies_on_both_sides_or_in_two_folds(targets: NDArray[np.int64]) -> None:
    held_out = hold_out(IDS, targets, 0.3, purpose="val", seed=0, groups=GROUPS)
    fold = assign_folds(IDS, targets, 5, seed=0, groups=GROUPS)
    assert len(set(zip(GROUPS, held_out.tolist(), strict=True))) == len(set(GROUPS))
    assert len(set(zip(GROUPS, fold.tolist(), strict=True))) == len(set(GROUPS))
    assert held_out.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / len(set(GROUPS))))


def test_adding_images_moves_no_other_between_folds_or_groups() -> None:
    for groups in (None, GROUPS):
        some = groups[:3000] if groups else None
        np.testing.assert_array_equal(
            assign_folds(IDS[:3000], TARGETS[:3000], 5, seed=0, groups=some),
            assign_folds(IDS, TARGETS, 5, seed=0, groups=groups)[:3000],
        )
    np.testing.assert_array_equal(
        hold_out(IDS[:3000], TARGETS[:3000], 0.1, purpose="val", seed=0, groups=GROUPS[:3000]),
        hold_out(IDS, TARGETS, 0.1, purpose="val", seed=0, groups=GROUPS)[:3000],
    )


@pytest.mark.parametrize("seed", range(20))
def test_each_class_of_two_groups_is_both_held_out_and_kept(seed: int) -> None:
    targets, groups = np.repeat(np.arange(5), 6), [f"group{index // 3}" for index in range(30)]
    for fraction in (0.01, 0.5, 0.99):
        mask = hold_out(IDS[:30], targets, fraction, purpose="val", seed=seed, groups=groups)
        assert mask.reshape(5, 6).sum(1).tolist() == [3] * 5


@pytest.mark.parametrize("seed", range(20))
def test_one_group_stays_in_train(seed: int) -> None:
    mask = hold_out(IDS[:9], TARGETS[:9], 0.9, purpose="val", seed=seed, groups=["only"] * 9)
    assert not mask.any()


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_label_is_both_learned_and_judged(seed: int) -> None:
    labels = np.zeros((200, 2), dtype=np.int64)
    labels[:100, 0], labels[:2, 1] = 1, 1
    mask = hold_out(IDS[:200], labels, 0.1, purpose="val", seed=seed)
    assert mask[:2].sum() == 1
    assert mask.sum() == pytest.approx(20, abs=1)


@pytest.mark.parametrize("seed", range(20))
def test_every_fold_has_every_class_that_is_large_enough(seed: int) -> None:
    targets = np.repeat([0, 1, 2, 3], [5, 6, 50, 3])
    fold = assign_folds(IDS[:64], targets, 5, seed=seed)
    for label in (0, 1, 2):
        assert set(fold[targets == label].tolist()) == set(range(5))
    groups = [f"group{index // 2}" for index in range(60)]
    grouped = assign_folds(IDS[:60], np.arange(60) // 2 % 3, 5, seed=seed, groups=groups)
    for label in range(3):
        assert set(grouped[np.arange(60) // 2 % 3 == label].tolist()) == set(range(5))


@pytest.mark.parametrize("seed", range(20))
def test_no_fold_is_empty(seed: int) -> None:
    assert sorted(assign_folds(IDS[:5], np.arange(5), 5, seed=seed).tolist()) == list(range(5))
    groups = [f"group{index // 2}" for index in range(12)]
    labels = LABELS[:12]
    assert set(assign_folds(IDS[:12], labels, 6, seed=seed, groups=groups).tolist()) == set(range(6))


def test_folds_are_the_hash_cut_into_equal_parts() -> None:
    fold = assign_folds(IDS, TARGETS, 5, seed=3)
    assert fold.tolist() == [int(hash_fraction("fold", 3, sample_id) * 5) for sample_id in IDS]


def test_too_few_for_the_folds_are_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match="5 folds need at least 5 samples, got 4"):
        assign_folds(IDS[:4], TARGETS[:4], 5, seed=0)
    with pytest.raises(ValueError, match="5 folds need at least 5 groups, got 2"):
        assign_folds(IDS[:14], TARGETS[:14], 5, seed=0, groups=GROUPS[:14])
    with pytest.raises(ValueError, match="at least 2, got 1"):
        assign_folds(IDS, TARGETS, 1, seed=0)


@pytest.mark.parametrize("targets", [TARGETS, LABELS], ids=["classes", "labels"])
def test_larger_subsets_contain_smaller_ones(targets: NDArray[np.int64]) -> None:
    fractions = [0.0005, 0.01, 0.1, 0.2, 0.5, 1.0]
    masks = [keep(IDS, targets, seed=0, fraction=fraction, per_class=None) for fraction in fractions]
    for smaller, larger in pairwise(masks):
        assert (smaller <= larger).all()
        assert smaller.sum() < larger.sum()
    assert masks[-1].all()
    assert masks[2].mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 6000))


def test_so_many_per_class_are_those_with_the_lowest_hashes() -> None:
    targets = np.repeat([0, 1, 2], [5000, 995, 5])
    kept = keep(IDS, targets, seed=2, fraction=None, per_class=10)
    for label in range(3):
        members = [IDS[i] for i in np.flatnonzero(targets == label)]
        lowest = sorted(members, key=lambda sample_id: hash_fraction("keep", 2, sample_id))[:10]
        assert {IDS[i] for i in np.flatnonzero(kept & (targets == label))} == set(lowest)


def test_subsets_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="one class per image, got 4 labels"):
        keep(IDS, LABELS, seed=0, fraction=None, per_class=3)
    with pytest.raises(ValueError, match="got both"):
        keep(IDS, TARGETS, seed=0, fraction=0.1, per_class=3)
    with pytest.raises(ValueError, match=r"\(0, 1\], got 1.5"):
        keep(IDS, TARGETS, seed=0, fraction=1.5, per_class=None)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        keep(IDS, TARGETS, seed=0, fraction=None, per_class=0)


def test_labels_and_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0 or 1, got \[2\]"):
        hold_out(IDS, LABELS * 2, 0.1, purpose="val", seed=0)
    with pytest.raises(ValueError, match="got 3 for 6000"):
        hold_out(IDS, TARGETS, 0.1, purpose="val", seed=0, groups=GROUPS[:3])
    with pytest.raises(ValueError, match="got 5 for 6000"):
        assign_folds(IDS, TARGETS[:5], 5, seed=0)


def test_each_problem_of_a_split_is_named() -> None:
    ids = {"train": ["a", "b", "b"], "val": ["c", "d", "e"], "test": ["a"]}
    targets = {"train": np.array([0, 0, 0]), "val": np.array([0, 1, 1]), "test": np.array([0])}
    groups = {"train": ["p", "q", "q"], "val": ["r", "p", "p"], "test": ["s"]}
    expected = [
        "Class dog is in val (2 samples) but not in train.",
        "Class eel is empty.",
        "Id a occurs 2 times (train, test).",
        "Id b occurs 2 times (train).",
    ]
    assert split_problems(ids, targets, ["cat", "dog", "eel"]) == expected
    labels = {name: np.eye(3, dtype=np.int64)[indices] for name, indices in targets.items()}
    assert split_problems(ids, labels, ["cat", "dog", "eel"]) == expected
    assert split_warnings({name: len(each) for name, each in ids.items()}, 3, groups) == [
        "Split test has 1 sample for 3 classes.",
        "Group p straddles splits (1 in train, 2 in val).",
    ]


def test_of_many_problems_of_a_kind_the_first_five_are_named_and_the_others_counted() -> None:
    ids = {"train": IDS[:100], "val": IDS[:100]}
    targets = {"train": np.zeros(100, dtype=np.int64), "val": np.arange(100)}
    problems = split_problems(ids, targets, [f"class{number}" for number in range(100)])
    assert problems[4:6] == [
        "Class class5 is in val (1 sample) but not in train.",
        "In all, 99 problems with classes.",
    ]
    assert problems[6:] == [f"Id image{i} occurs 2 times (train, val)." for i in range(5)] + [
        "In all, 100 ids occur several times."
    ]
    warnings = split_warnings({"train": 100, "val": 100}, 2, {"train": IDS[:100], "val": IDS[:6]})
    assert warnings[4:] == [
        "Group image4 straddles splits (1 in train, 1 in val).",
        "In all, 6 groups straddle splits.",
    ]


def test_a_drawn_split_has_no_problems() -> None:
    held_out = hold_out(IDS, TARGETS, 0.1, purpose="val", seed=0, groups=GROUPS)
    parts = {"train": np.flatnonzero(~held_out), "val": np.flatnonzero(held_out)}
    assert not split_problems(
        {name: [IDS[i] for i in part] for name, part in parts.items()},
        {name: TARGETS[part] for name, part in parts.items()},
        ["cat", "dog", "eel"],
    )
    groups = {name: [GROUPS[i] for i in part] for name, part in parts.items()}
    assert not split_warnings({name: len(part) for name, part in parts.items()}, 3, groups)
