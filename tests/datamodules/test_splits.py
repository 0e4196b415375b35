"""What is held out depends on ids, labels, purpose and seed; on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from datamodules.splits import hash_fraction, hold_out

IDS = [f"image{index}" for index in range(6000)]
TARGETS = np.arange(6000) % 3


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
