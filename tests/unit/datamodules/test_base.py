"""What every source shares: splits, facts, and batches as the network sees them."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from darkroom.datamodules.augmentation.pipeline import Augmentation
from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.images.store import ImageStore, without_pixels
from darkroom.datamodules.loader import Batch, BatchLoader
from darkroom.datamodules.seeding import generator_for

EVERYTHING = Augmentation(crop_padding=2, horizontal_flip=0.5, rotation=15, translation=0.1, zoom=0.1)


class Noise(ImageDataModule):
    """600 colour images of noise in three classes, 90 of them for testing."""

    class_names = ("a", "b", "c")
    source_shape = (3, 8, 6)

    def load(self) -> dict[str, ImageStore]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (600, *self.source_shape), generator=generator, dtype=torch.uint8)
        images[:, 1] //= 2  # channels with statistics of their own
        everything = ImageStore(images, torch.arange(600) % 3, [f"{index}" for index in range(600)])
        in_test = torch.arange(600) >= 510
        return {"train": everything.subset(~in_test), "test": everything.subset(in_test)}

    def listed(self) -> dict[str, ImageStore]:
        return {"train": without_pixels([f"{index}" for index in range(510)])}


def prepared(**arguments: Any) -> Noise:
    data = Noise(**arguments)
    data.setup()
    return data


def trainer(stage: str) -> pl.Trainer:
    made = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    setattr(made, stage, True)  # Lightning's own way to set its state
    return made


def transferred(data: Noise, stage: str, batch: Batch) -> torch.Tensor:
    data.trainer = trainer(stage)
    return data.on_after_batch_transfer(batch, 0).images


# Splits -----------------------------------------------------------------------------------------


def test_splits_share_no_image_and_lose_none() -> None:
    data = prepared(val_fraction=0.2)
    train, val, test = (set(data.splits[name].ids) for name in ("train", "val", "test"))
    assert len(train) + len(val) + len(test) == 600 == len(train | val | test)
    assert test == {f"{index}" for index in range(510, 600)}
    assert len(val) == pytest.approx(102, abs=4 * math.sqrt(102 * 0.8))


def test_without_a_validation_fraction_all_is_trained_on() -> None:
    data = prepared(val_fraction=0.0)
    assert set(data.splits) == {"train", "test"}
    assert len(data.splits["train"]) == 510
    assert data.val_dataloader() == []


def test_the_seed_leaves_the_split_alone_and_split_seed_changes_it() -> None:
    first, reseeded, resplit = prepared(), prepared(seed=7), prepared(split_seed=7)
    assert len({data.facts()["split_fingerprint"] for data in (first, reseeded)}) == 1
    assert resplit.facts()["split_fingerprint"] != first.facts()["split_fingerprint"]
    orders = [next(iter(data.train_dataloader())).indices.tolist() for data in (first, reseeded)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("val_fraction", [0.0, 0.1, 0.5])
def test_the_number_of_training_images_without_files_is_that_after_setup(val_fraction: float) -> None:
    data = Noise(val_fraction=val_fraction)
    beforehand = data.num_train_images
    data.setup()
    assert beforehand == data.num_train_images == len(data.splits["train"])


def test_a_second_setup_does_nothing() -> None:
    data = prepared()
    splits = data.splits
    data.setup("test")
    assert data.splits is splits


# Statistics and facts ---------------------------------------------------------------------------


def test_normalisation_is_by_numpys_statistics_of_the_training_images_alone() -> None:
    data = prepared(val_fraction=0.4)
    pixels = data.splits["train"].images.numpy() / 255.0
    facts = data.facts()
    np.testing.assert_allclose(facts["pixel_mean"], pixels.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(facts["pixel_std"], pixels.std(axis=(0, 2, 3)), rtol=1e-5)
    others = data.splits["val"].images.numpy() / 255.0
    assert not np.allclose(facts["pixel_mean"], others.mean(axis=(0, 2, 3)), rtol=1e-5)

    normalised = data.preprocess(data.splits["train"].images).numpy()
    np.testing.assert_allclose(normalised.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_another_sets_statistics_can_be_taken_over() -> None:
    data = prepared(image_size=5)
    data.normalize_with((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    assert data.facts()["pixel_std"] == [0.5] * 3
    assert data.preprocess(data.splits["test"].images).shape == (90, 3, 5, 5)


def test_facts_count_what_is_there() -> None:
    data = prepared()
    facts = data.facts()
    assert facts["source"] == "Noise"
    assert facts["images"] == {name: len(store) for name, store in data.splits.items()}
    for name, store in data.splits.items():
        assert facts["class_counts"][name] == np.bincount(store.targets.numpy(), minlength=3).tolist()
    assert facts["class_counts"]["test"] == [30, 30, 30]
    assert facts["image_shape"] == [3, 8, 6]


def test_a_class_without_images_is_counted_as_zero() -> None:
    data = prepared()
    data.splits["test"] = replace(data.splits["test"], targets=torch.zeros(90, dtype=torch.int64))
    assert data.class_counts("test") == [90, 0, 0]


class OnePixelOff(Noise):
    def load(self) -> dict[str, ImageStore]:
        source = super().load()
        source["test"].images[89, 2, 7, 5] ^= 1
        return source


class OneLabelOff(Noise):
    def load(self) -> dict[str, ImageStore]:
        source = super().load()
        source["train"].targets[0] = 2
        return source


def test_one_pixel_or_one_label_changes_the_fingerprint_of_its_part_alone() -> None:
    plain, pixel, label = Noise(), OnePixelOff(), OneLabelOff()
    for data in (plain, pixel, label):
        data.setup()
    assert plain.facts()["fingerprint"] == prepared().facts()["fingerprint"]
    assert pixel.facts()["fingerprint"]["train"] == plain.facts()["fingerprint"]["train"]
    assert pixel.facts()["fingerprint"]["test"] != plain.facts()["fingerprint"]["test"]
    assert label.facts()["fingerprint"]["train"] != plain.facts()["fingerprint"]["train"]
    assert label.facts()["fingerprint"]["test"] == plain.facts()["fingerprint"]["test"]
    assert pixel.facts()["split_fingerprint"] == plain.facts()["split_fingerprint"]


# Batches ----------------------------------------------------------------------------------------


def test_training_is_shuffled_and_evaluation_is_in_order_with_larger_batches() -> None:
    data = prepared(batch_size=32)
    train = [batch.indices for batch in data.train_dataloader()]
    assert [len(indices) for indices in train[:-1]] == [32] * (len(train) - 1)
    assert torch.cat(train).tolist() != list(range(len(data.splits["train"])))
    for loader, split in ((data.val_dataloader(), "val"), (data.test_dataloader(), "test")):
        assert isinstance(loader, BatchLoader)
        batches = list(loader)
        assert len(batches) == 1
        assert batches[0].indices.tolist() == list(range(len(data.splits[split])))


def test_a_restored_module_goes_on_in_its_order_once_and_then_starts_anew() -> None:
    data, restored = prepared(batch_size=100), prepared(batch_size=100)
    loader = data.train_dataloader()
    taken = [batch.indices.tolist() for batch in islice(loader, 2)]
    restored.load_state_dict(loader.state_dict())
    left = [batch.indices.tolist() for batch in restored.train_dataloader()]
    assert taken + left == [batch.indices.tolist() for batch in restored.train_dataloader()]
    assert data.state_dict() == {}  # no trainer, nothing to save


@pytest.mark.parametrize("stage", ["validating", "testing", "predicting"])
def test_evaluation_is_the_plain_preprocessing_whatever_the_augmentation(stage: str) -> None:
    data = prepared(augmentation=EVERYTHING)
    batch = next(iter(data.train_dataloader()))
    pixels = batch.images.numpy() / 255.0
    facts = data.facts()
    mean, std = (np.reshape(facts[key], (1, 3, 1, 1)) for key in ("pixel_mean", "pixel_std"))
    images = transferred(data, stage, batch)
    np.testing.assert_allclose(images.numpy(), (pixels - mean) / std, atol=1e-5)
    assert torch.equal(transferred(data, stage, batch._replace(seed=1)), images)


def test_training_augments_by_the_batchs_seed() -> None:
    data = prepared(augmentation=EVERYTHING)
    batch = next(iter(data.train_dataloader()))
    plain = transferred(data, "validating", batch)
    augmented = transferred(data, "training", batch)
    assert augmented.shape == plain.shape
    changed = (augmented != plain).flatten(1).any(1)
    assert changed.float().mean() > 0.95
    torch.rand(10)
    assert torch.equal(transferred(data, "training", batch), augmented)
    assert not torch.equal(transferred(data, "training", batch._replace(seed=batch.seed + 1)), augmented)


def test_training_without_augmentation_is_the_plain_preprocessing() -> None:
    data = prepared()
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(transferred(data, "training", batch), transferred(data, "validating", batch))


def test_a_batch_keeps_its_targets_places_and_seed() -> None:
    data = prepared(augmentation=EVERYTHING)
    batch = next(iter(data.train_dataloader()))
    data.trainer = trainer("training")
    after = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(after.targets, batch.targets)
    assert torch.equal(after.indices, batch.indices)
    assert after.seed == batch.seed


def test_augmented_pixels_are_in_the_unit_range_and_black_is_zero() -> None:
    data = prepared(augmentation=EVERYTHING)
    pixels = data.augment(data.splits["train"].images, generator_for("cpu", 0))
    assert pixels.dtype == torch.float32
    assert pixels.min() == 0
    assert 0.9 < pixels.max() <= 1 + 1e-6


def test_images_are_resized_in_training_and_evaluation() -> None:
    data = prepared(image_size=12, augmentation=EVERYTHING)
    assert data.image_shape == (3, 12, 12)
    batch = next(iter(data.train_dataloader()))
    for stage in ("training", "validating"):
        assert transferred(data, stage, batch).shape == (128, 3, 12, 12)


# Arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("val_fraction", 1.0),
        ("val_fraction", -0.1),
        ("val_fraction", math.nan),
        ("image_size", 0),
    ],
)
def test_an_argument_out_of_range_is_refused_by_key_and_value(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"data\.{key} must .* got {value}"):
        Noise(**{key: value})


def test_every_argument_is_documented() -> None:
    documented = inspect.getdoc(ImageDataModule) or ""
    for name in inspect.signature(ImageDataModule).parameters:
        assert f"\n    {name}: " in documented
