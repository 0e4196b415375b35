"""What is found in images is what was put there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from darkroom.datamodules import Digits, ImageDataModule
from darkroom.datamodules.images.cache import BadImage
from darkroom.datamodules.images.store import ImageStore
from darkroom.experiments.analysis.dataset import inspection
from darkroom.experiments.analysis.dataset.inspection import examine

GENERATOR = torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Store(ImageStore):
    """Images in memory with what only files and tables have."""

    groups: list[str] | None = None
    original_sizes: Tensor | None = None


class InMemory(ImageDataModule):
    """Splits as they are given."""

    def __init__(self, splits: dict[str, ImageStore], class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.splits = splits
        self.class_names = class_names
        self.source_shape = tuple(splits["train"].images.shape[1:])
        self.normalize_with((0.0,) * self.source_shape[0], (1.0,) * self.source_shape[0])

    def load(self):
        return self.splits

    def train_ids(self):
        return self.splits["train"].ids

    def listed(self):
        return self.splits

    def class_counts(self, split: str = "train") -> list[int]:
        targets = self.splits[split].targets
        if targets.ndim == 2:
            return [int(count) for count in targets.sum(0)]
        return torch.bincount(targets, minlength=len(self.class_names)).tolist()


def noise(count: int, channels: int = 3, side: int = 40) -> Tensor:
    """Images that have nothing in common."""
    coarse = torch.rand(count, channels, 5, 5, generator=GENERATOR)
    return torch.nn.functional.interpolate(coarse, (side, side)).mul(255).byte()


def module_of(**splits: Store) -> InMemory:
    return InMemory(splits, ("cat", "dog"))


def store_of(name: str, images: Tensor, **more) -> Store:
    targets = more.pop("targets", torch.arange(len(images)) % 2)
    return Store(images, targets, [f"{name}{place}" for place in range(len(images))], **more)


def test_an_image_in_two_splits_is_a_leak_and_one_twice_in_a_split_is_not():
    train, test = noise(10), noise(6)
    train[7] = train[2]
    test[4] = train[3]
    test[5] = (train[6].float() * 0.9).byte()
    found = examine("pets", module_of(train=store_of("train", train), test=store_of("test", test)))
    assert found.leaks.total == 2
    assert [(pair.first.id, pair.second.id, pair.kind) for pair in found.leaks.listed] == [
        ("train3", "test4", "equal"),
        ("train6", "test5", "near"),
    ]
    assert [(pair.first.id, pair.second.id) for pair in found.repeats.listed] == [("train2", "train7")]
    assert found.leak_summary == "2 pairs of duplicate images across splits"


def test_duplicates_with_different_labels_are_conflicts():
    train = noise(10)
    train[7], train[8] = train[2], train[4]
    found = examine("pets", module_of(train=store_of("train", train)))
    assert [(pair.first.id, pair.first.label, pair.second.label) for pair in found.conflicts.listed] == [
        ("train2", "cat", "dog")
    ]
    assert found.conflicts.total == 1
    assert found.repeats.total == 2
    assert found.leak_summary is None


def test_mirror_images_across_splits_are_found():
    train, val = noise(5, side=64), noise(5, side=64)
    val[2] = train[1].flip(2)
    found = examine("pets", module_of(train=store_of("train", train), val=store_of("val", val)))
    assert [(pair.first.id, pair.second.id, pair.kind) for pair in found.leaks.listed] == [
        ("train1", "val2", "mirrored")
    ]


def test_groups_on_both_sides_are_named_with_their_counts():
    train = store_of("train", noise(4), groups=["ann", "ann", "bob", "cy"])
    val = store_of("val", noise(3), groups=["bob", "dan", "ann"])
    found = examine("pets", module_of(train=train, val=val))
    assert [(each.group, each.images) for each in found.straddlers] == [
        ("ann", {"train": 2, "val": 1}),
        ("bob", {"train": 1, "val": 1}),
    ]
    assert found.leak_summary == "2 groups across splits"


def test_a_set_without_leaks_says_so():
    found = examine("pets", module_of(train=store_of("train", noise(6)), val=store_of("val", noise(6))))
    assert found.leak_summary is None
    assert ("no duplicates across splits", False) in found.remarks()


def test_images_unlike_the_rest_are_outliers_by_what_sets_them_apart():
    train = noise(60)
    train[5] = 200  # of one colour
    train[9] = (train[9].float() * 0.05).byte()  # dark
    sizes = torch.tensor([[375, 500]]).repeat(60, 1)
    sizes[7] = torch.tensor([20, 27])
    sizes[8] = torch.tensor([100, 1900])
    found = examine("pets", module_of(train=store_of("train", train, original_sizes=sizes)))
    named = {(each.sample.id, each.measure) for each in found.outliers}
    assert {
        ("train5", "contrast"),
        ("train9", "brightness"),
        ("train7", "size"),
        ("train8", "aspect ratio"),
    } <= named
    assert {name for name, _ in named} <= {"train5", "train7", "train8", "train9"}
    assert found.num_outliers == len(found.outliers)
    np.testing.assert_allclose(found.values["aspect ratio"]["train"][8], 19)
    np.testing.assert_allclose(found.values["size"]["train"][7], np.sqrt(20 * 27))


def test_files_of_one_size_have_no_distribution_of_sizes():
    sizes = torch.tensor([[40, 40]]).repeat(6, 1)
    found = examine("pets", module_of(train=store_of("train", noise(6), original_sizes=sizes)))
    assert list(found.values) == ["brightness", "contrast"]


def test_counts_statistics_and_imbalance_are_those_of_numpy():
    data = Digits(val_fraction=0.2)
    data.setup()
    found = examine("digits/cnn", data)
    assert list(found.num_images) == ["train", "val", "test"]
    for split, store in data.splits.items():
        counts = np.bincount(store.targets.numpy(), minlength=10)
        assert found.class_counts[split] == counts.tolist()
        pixels = store.images.numpy() / 255
        assert found.channel_means[split] == pytest.approx([pixels.mean()], rel=1e-5)
        assert found.channel_stds[split] == pytest.approx([pixels.std()], rel=1e-5)
    counts = np.array(found.class_counts["train"])
    assert found.imbalance == counts.max() / counts.min()
    assert found.headline == "1,797 grey images of 8x8 pixels, 10 classes (multiclass)"


def test_several_labels_of_an_image_are_counted_and_compared_as_a_whole():
    images = noise(4)
    images[3] = images[0]
    targets = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]])
    data = InMemory({"train": store_of("train", images, targets=targets)}, ("red", "white", "plate"))
    found = examine("cells", data)
    assert found.task == "multilabel"
    assert found.class_counts["train"] == [2, 2, 1]
    pair = found.conflicts.listed[0]
    assert (pair.first.label, pair.second.label) == ("red, white", "red")


def test_what_the_source_left_out_and_noted_is_passed_on():
    data = module_of(train=store_of("train", noise(4)))
    data.skipped = [BadImage("cat/1.jpg", "cut short")]
    data.notes = ["this set has no test images"]
    found = examine("pets", data)
    assert found.skipped == (("cat/1.jpg", "cut short"),)
    texts = [text for text, _ in found.remarks()]
    assert "this set has no test images" in texts
    assert "1 image left out as unreadable" in texts


def test_a_class_without_training_images_is_infinitely_outnumbered():
    targets = torch.zeros(4, dtype=torch.int64)
    found = examine("pets", module_of(train=store_of("train", noise(4), targets=targets)))
    assert found.imbalance == float("inf")
    assert ("not every class has training images", True) in found.remarks()


def test_all_pairs_are_counted_where_only_some_are_listed(monkeypatch):
    monkeypatch.setattr(inspection, "MAX_LISTED", 3)
    images = noise(4).repeat(3, 1, 1, 1)
    found = examine("pets", module_of(train=store_of("train", images)))
    assert found.repeats.total == 8
    assert len(found.repeats.listed) == 3


def test_the_json_holds_what_was_found():
    images = noise(10)
    images[7] = images[2]
    found = examine("pets", module_of(train=store_of("train", images), val=store_of("val", noise(3))))
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["repeats"]["listed"][0]["first"] == {
        "split": "train",
        "place": 2,
        "id": "train2",
        "label": "cat",
    }
    brightness = found.values["brightness"]["train"]
    assert plain["ranges"]["brightness"]["train"]["median"] == float(np.median(brightness))


@pytest.mark.skipif("DARKROOM_DATA" not in os.environ, reason="DARKROOM_DATA is not set")
def test_photographs_of_all_shapes_show_sizes_and_no_leak():
    found = examine("cats_dogs", cats_and_dogs())
    assert found.leak_summary is None
    assert found.values["size"]["train"].max() > 800
    small = [each for each in found.outliers if each.measure == "size" and each.score < 0]
    assert min(small, key=lambda each: each.value).value < 100


def cats_and_dogs() -> InMemory:
    """340 photographs, squashed to 96x96."""
    root = Path(os.environ["DARKROOM_DATA"]) / "cats_dogs_subset"
    splits = {}
    for split in ("train", "test"):
        paths = sorted((root / split).rglob("*.jpg"))
        opened = [Image.open(path).convert("RGB") for path in paths]
        pixels = np.stack([np.asarray(image.resize((96, 96))) for image in opened])
        splits[split] = Store(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.tensor([int(path.parent.name == "dog") for path in paths]),
            [path.relative_to(root).as_posix() for path in paths],
            original_sizes=torch.tensor([(image.height, image.width) for image in opened]),
        )
    return InMemory(splits, ("cat", "dog"))
