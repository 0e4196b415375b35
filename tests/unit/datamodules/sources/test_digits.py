"""The bundled digits are scikit-learn's, and their test set is always the same fifth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from darkroom.datamodules import Digits


def prepared(split_seed: int = 0, seed: int = 0) -> Digits:
    data = Digits(split_seed=split_seed, seed=seed)
    data.prepare_data()
    data.setup()
    return data


def test_every_digit_is_in_one_split_with_its_own_pixels_and_label() -> None:
    bunch = load_digits()
    data = prepared()
    seen = []
    for store in data.splits.values():
        places = [int(sample_id.removeprefix("digits/")) for sample_id in store.ids]
        np.testing.assert_allclose(store.images.numpy()[:, 0] * (16 / 255), bunch.images[places], atol=0.04)
        np.testing.assert_array_equal(store.targets.numpy(), bunch.target[places])
        seen += places
    assert sorted(seen) == list(range(1797))


def test_pixels_use_the_whole_range_of_a_byte() -> None:
    images = prepared().splits["train"].images
    assert (images.min().item(), images.max().item()) == (0, 255)


def test_a_fifth_of_each_class_is_for_testing() -> None:
    sizes = np.bincount(load_digits().target)
    counts = np.array(prepared().class_counts("test"))
    np.testing.assert_allclose(counts / sizes, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / sizes.min()))
    assert counts.sum() / 1797 == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 1797))


def test_the_test_set_is_the_same_for_every_seed_while_validation_follows_split_seed() -> None:
    first, reseeded, resplit = prepared(), prepared(seed=1), prepared(split_seed=1)
    assert first.splits["test"].ids == reseeded.splits["test"].ids == resplit.splits["test"].ids
    assert first.splits["val"].ids == reseeded.splits["val"].ids != resplit.splits["val"].ids


def test_validation_takes_its_share_of_what_testing_left() -> None:
    # Were both drawn from one hash, no digit with a hash below 0.2 would remain for validation.
    data = prepared()
    left = len(data.splits["train"]) + len(data.splits["val"])
    assert len(data.splits["val"]) / left == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / left))


def test_the_number_of_training_images_is_known_beforehand() -> None:
    data = Digits()
    beforehand = data.num_train_images
    data.setup()
    assert beforehand == len(data.splits["train"])
