"""Over all folds each training image is validated once, and each class in all; the test stays whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from darkroom.datamodules.images.store import ImageStore, without_pixels
from darkroom.datamodules.splitting.split import Division

NAMES = ("cat", "dog", "eel")
CUSTOMARY = {
    "val_fraction": 0.1,
    "test_fraction": 0.0,
    "folds": 5,
    "seed": 0,
    "train_fraction": None,
    "train_per_class": None,
}


def division(fold: int, **changed) -> Division:
    return Division(**{**CUSTOMARY, "fold": fold, **changed})


def images(part: str, targets: torch.Tensor, groups: list[str] | None = None) -> ImageStore:
    store = without_pixels([f"{part}/{number}" for number in range(len(targets))], targets)
    return ImageStore(store.images, store.targets, store.ids, groups)


def by_class(*sizes: int) -> torch.Tensor:
    return torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))


def folds_of(source: dict[str, ImageStore], **changed) -> dict[str, int]:
    """The fold that each image is validated in; each must have exactly one."""
    found: dict[str, int] = {}
    for fold in range(5):
        parts = division(fold, **changed).divide(source, NAMES)
        validated = set(parts["val"].ids)
        assert not validated & (found.keys() | set(parts["train"].ids))
        found |= dict.fromkeys(validated, fold)
    return found


@pytest.mark.parametrize("train", [{}, {"train": 0}])
def test_without_training_images_it_is_said_what_there_is(train: dict[str, int]) -> None:
    source = {name: images(name, by_class(size)) for name, size in {**train, "val": 5, "test": 3}.items()}
    with pytest.raises(ValueError, match=r"no training images \(but .*5 for val, 3 for test\)"):
        division(0).divide(source, NAMES)


def test_each_image_is_validated_in_one_fold_and_trained_on_in_the_others() -> None:
    source = {"train": images("train", by_class(300, 200, 40)), "test": images("test", by_class(20, 20, 5))}
    assert folds_of(source).keys() == set(source["train"].ids)
    parts = division(3).divide(source, NAMES)
    assert set(parts["train"].ids) | set(parts["val"].ids) == set(source["train"].ids)
    assert parts["test"] is source["test"]


def test_the_sources_own_validation_images_are_folded_too_and_held_out_test_images_are_not() -> None:
    source = {"train": images("train", by_class(300, 200, 100)), "val": images("val", by_class(20, 20, 20))}
    found = folds_of(source, test_fraction=0.2)
    tests = [set(division(fold, test_fraction=0.2).divide(source, NAMES)["test"].ids) for fold in range(5)]
    assert all(test == tests[0] for test in tests)
    assert found.keys() == {*source["train"].ids, *source["val"].ids} - tests[0]


def test_every_class_has_its_share_of_every_fold() -> None:
    targets = by_class(2000, 1000, 5)
    source = {"train": images("train", targets)}
    counts = Counter((fold, int(name.partition("/")[2])) for name, fold in folds_of(source).items())
    of_class = Counter((fold, int(targets[number])) for fold, number in counts)
    for fold in range(5):
        assert of_class[fold, 0] == pytest.approx(400, abs=60)
        assert of_class[fold, 1] == pytest.approx(200, abs=45)
        assert of_class[fold, 2] == 1


def test_added_images_move_no_other_to_another_fold() -> None:
    targets = by_class(300, 200, 100)[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    before = folds_of({"train": images("train", targets[:400])})
    after = folds_of({"train": images("train", targets)})
    assert {name: after[name] for name in before} == before
    assert len(after) == 600


def test_a_group_is_validated_as_a_whole() -> None:
    groups = [f"patient{number // 3}" for number in range(600)]
    found = folds_of({"train": images("train", torch.arange(600) % 3, groups)})
    folds_of_group = {(groups[int(name.partition("/")[2])], fold) for name, fold in found.items()}
    assert len(folds_of_group) == 200


def test_more_folds_than_the_smallest_class_has_images_are_refused_by_every_fold() -> None:
    source = {"train": images("train", by_class(50, 50, 3))}
    for fold in range(5):
        with pytest.raises(ValueError, match="5 folds are too many for the class eel") as refused:
            division(fold).divide(source, NAMES)
        assert "in 3 of them (images: 3); ask for at most 3 (data.folds)" in str(refused.value)
    with pytest.raises(ValueError, match=r"class eel, .* in 1 of them \(images: 1\); give it more"):
        division(0).divide({"train": images("train", by_class(50, 50, 1))}, NAMES)
    in_two_groups = [*(f"g{number}" for number in range(100)), *("x" * 10), *("y" * 10)]
    source = {"train": images("train", by_class(50, 50, 20), in_two_groups)}
    with pytest.raises(ValueError, match=r"class eel, .* 2 of them \(images: 20, groups kept"):
        division(0).divide(source, NAMES)


def test_a_rare_label_may_be_missing_in_a_fold_but_not_in_all_that_one_trains_on() -> None:
    labels = torch.zeros(100, 3)
    labels[:60, 0] = labels[50:, 1] = labels[:2, 2] = 1
    assert len(folds_of({"train": images("train", labels)})) == 100
    labels[1, 2] = 0
    with pytest.raises(ValueError, match="the label eel, which is in 1 of them"):
        division(0).divide({"train": images("train", labels)}, NAMES)


@pytest.mark.parametrize(
    ("changed", "purpose", "asked"),
    [
        (
            {"folds": None, "test_fraction": 0.2, "val_fraction": 0.0},
            "test",
            "test_fraction=0.2 asks for 20 %",
        ),
        ({"folds": None, "val_fraction": 0.2}, "val", "val_fraction=0.2 asks for 20 %"),
        ({"folds": 3}, "val", "folds=3 asks for 33 %"),
    ],
)
def test_the_share_that_a_large_group_makes_of_a_split_is_said(changed, purpose, asked) -> None:
    """Over split seeds; and nothing is said where each image is drawn by itself."""
    groups = ["large"] * 700 + [f"small {number % 30}" for number in range(300)]
    grouped = {"train": images("train", by_class(1000), groups)}
    alone = {"train": images("train", by_class(400, 600))}
    share = float(asked.rpartition(" ")[0].rpartition(" ")[2]) / 100
    for seed in range(12):
        each = division(0, **changed, seed=seed)
        splits = each.divide(grouped, NAMES)
        [note] = [note for note in each.notes(grouped, splits) if "asks for" in note]
        held_out = len(splits[purpose])
        assert abs(held_out / 1000 - share) > 0.05  # 70 % and more, or less than the small groups' share
        assert note.startswith(f"{held_out} of 1000 images ({held_out / 10:.0f} %) are for {purpose}")
        assert asked in note
        assert "the largest, large, has 700 images" in note
        assert not [note for note in each.notes(alone, each.divide(alone, NAMES)) if "asks for" in note]
