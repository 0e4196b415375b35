"""What every data source shares: prepare, split, batches, and the facts a run records."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.augment import Augmentation, change_pixels, crop_and_flip
from datamodules.loader import Batch, BatchLoader
from datamodules.preprocess import Normalization, Preprocess, statistics_for
from datamodules.randomness import generator_for
from datamodules.splits import hold_out
from datamodules.store import ImageStore


class ImageDataModule(pl.LightningDataModule):
    """Images with one label each, split into train, validation and test.

    A source states `class_names`, `source_shape` and `num_source_images`, which need no files, and
    implements `load`. Validation is drawn from the training images; the test set stays whole.

    Args:
        batch_size: Images per training step.
        val_fraction: Share of the training images held out for validation, in [0, 1); with 0 the last
            checkpoint is the chosen one and early stopping is off.
        split_seed: Another one holds out other images. Apart from `seed`, so that runs differing in
            seed alone are judged on the same images.
        image_size: Side in pixels that images are resized to on the training device; null keeps theirs.
        normalization: Zero mean and unit variance by the statistics of the training images
            ("dataset") or of ImageNet ("imagenet"), or pixels in [0, 1] ("unit").
        augmentation: What may happen to training images.
        seed: Of order and augmentation; the experiment's.
    """

    class_names: tuple[str, ...]
    source_shape: tuple[int, int, int]
    num_source_images: int

    def __init__(
        self,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        image_size: int | None = None,
        normalization: Normalization = "dataset",
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, got {batch_size}; 128 is customary")
        if not 0 <= val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie in [0, 1), got {val_fraction}; 0.1 is customary")
        if image_size is not None and image_size < 1:
            raise ValueError(f"data.image_size must be at least 1 pixel, got {image_size}")
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.image_size = image_size
        self.normalization = normalization
        self.augmentation = augmentation
        self.seed = seed
        self.splits: dict[str, ImageStore] = {}
        self._source: Mapping[str, ImageStore] | None = None
        self._resume_at: dict[str, Any] | None = None

    def take(self, source: Mapping[str, ImageStore]) -> None:
        """Trains on what `load` gave to another DataModule of the same source, in place of loading it."""
        self._source = source

    @abstractmethod
    def load(self) -> dict[str, ImageStore]:
        """The source's images as "train" and "test"; called once, after `prepare_data`.

        Raises:
            FileNotFoundError: Files are missing.
            ValueError: Files are not what the source expects.
        """

    @abstractmethod
    def train_ids(self) -> Sequence[str]:
        """The ids that "train" will have, in order, known without its files."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) as the network sees them."""
        channels, height, width = self.source_shape
        return (channels, self.image_size or height, self.image_size or width)

    @property
    def num_train_images(self) -> int:
        """Training images left after validation is drawn; needs no files."""
        if self.splits:
            return len(self.splits["train"])
        ids = self.train_ids()
        return int((~self._in_validation(ids, np.zeros(len(ids), dtype=np.int64))).sum())

    def setup(self, stage: str | None = None) -> None:
        """Loads and splits; a second call does nothing."""
        if self.splits:
            return
        source = self._source or self.load()
        train = source["train"]
        held_out = torch.from_numpy(self._in_validation(train.ids, train.targets.numpy()))
        splits = {"train": train.subset(~held_out), "test": source["test"]}
        if held_out.any():
            splits["val"] = train.subset(held_out)
        measured = splits["train"].pixel_statistics() if self.normalization == "dataset" else ((), ())
        mean, std = statistics_for(self.normalization, self.source_shape[0], measured)
        self.normalize_with(mean, std)
        self.source_fingerprints = {name: store.fingerprint() for name, store in source.items()}
        self.splits = splits

    def _in_validation(self, ids: Sequence[str], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
        return hold_out(ids, targets, self.val_fraction, purpose="val", seed=self.split_seed)

    def normalize_with(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Takes another data set's statistics: those that a trained network was trained with."""
        self.preprocess = Preprocess(mean, std, self.image_size)

    # What a run records -------------------------------------------------------------------------

    def class_counts(self, split: str = "train") -> list[int]:
        """Images of each class."""
        counts = torch.bincount(self.splits[split].targets, minlength=len(self.class_names))
        return [int(count) for count in counts]

    def facts(self) -> dict[str, Any]:
        """Counts, statistics and fingerprints: content by pixel, split by id."""
        return {
            "source": type(self).__name__,
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
            "images": {name: len(store) for name, store in self.splits.items()},
            "class_counts": {name: self.class_counts(name) for name in self.splits},
            "pixel_mean": self.preprocess.mean.flatten().tolist(),
            "pixel_std": self.preprocess.std.flatten().tolist(),
            "fingerprint": self.source_fingerprints,
            "split_fingerprint": self.split_fingerprint(),
        }

    def split_fingerprint(self) -> str:
        """A hash of which id belongs to which split."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self.splits):
            digest.update(f"{name}\n".encode())
            digest.update("\n".join(sorted(self.splits[name].ids)).encode())
        return digest.hexdigest()

    # Batches ------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        rank, world_size = self._place()
        loader = BatchLoader(
            self.splits["train"],
            self.batch_size,
            shuffle=True,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        if self._resume_at is not None:
            loader.load_state_dict(self._resume_at)
            self._resume_at = None
        return loader

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._evaluation_loader("val") if "val" in self.splits else []

    def test_dataloader(self) -> BatchLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> BatchLoader:
        # Without gradients more images fit; small batches would only cost time.
        rank, world_size = self._place()
        return BatchLoader(self.splits[split], max(self.batch_size, 256), rank=rank, world_size=world_size)

    def _place(self) -> tuple[int, int]:
        """Which of how many processes that train together this one is."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands. Lightning saves its loader's state too, but restores it only in
        mid-epoch, and not once the schedule has asked for the number of steps."""
        loader = self.trainer.train_dataloader if self.trainer is not None else None
        return loader.state_dict() if isinstance(loader, BatchLoader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next training loader goes on from there; Lightning calls this before it asks for one."""
        self._resume_at = state_dict

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 (B, C, H, W) to what the network eats, on the device that trains."""
        device = batch.images.device
        if self.preprocess.mean.device != device:
            self.preprocess.to(device)
        if self.trainer is not None and self.trainer.training:
            pixels = self.augment(batch.images, generator_for(device, batch.seed))
        else:
            pixels = self.preprocess.scale(batch.images)
        return batch._replace(images=self.preprocess.normalize(pixels))

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, C, H, W) to float32 in [0, 1], resized, each image changed in its own way."""
        pixels = self.preprocess.scale(crop_and_flip(images, self.augmentation, generator))
        return change_pixels(pixels, self.augmentation, generator)
