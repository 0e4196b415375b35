"""What every data source shares: prepare, split, batches, and the facts a run records."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from .augmentation.pipeline import Augmentation, change_pixels, crop_and_flip
from .batch_ops import in_pieces
from .images.resizing import Interpolation
from .images.store import ImageStore
from .loader import Batch, BatchLoader, read
from .preprocess import InputNormalization, Preprocess, statistics_for
from .seeding import generator_for
from .splitting.bootstrap import bootstrap_sample
from .splitting.sampling import Sampling, balancing_weights, read_sample_weights
from .splitting.split import Division, check_splits
from .threads import one_core_left

# In a batch that is evaluated: 32 MiB of float32, a large network's activations apart.
EVALUATED_VALUES = 2**23
TaskName = Literal["binary", "multiclass", "multilabel"]


class ImageDataModule(pl.LightningDataModule):
    """Images with their labels, split into train, validation and test.

    A source states `class_names` and `source_shape`, and implements `load` and `listed`. Splits that it
    brings with it are kept; validation is otherwise drawn from the training images.

    The arguments, by what they concern:

    - batches: batch_size, sampling, sample_weights
    - the split: val_fraction, test_fraction, folds, fold, split_seed
    - subsets to train on: train_fraction, train_per_class, bootstrap
    - pixels: image_size, interpolation, normalization, augmentation
    - randomness: seed

    Args:
        batch_size: Images per training step.
        val_fraction: Share of the training images held out for validation, in [0, 1), where the source
            has no validation images of its own; with 0 the last checkpoint is the chosen one and early
            stopping is off.
        test_fraction: Share of the training images held out for the test, in [0, 1), where the source
            has no test images of its own; with 0 such a source goes without.
        folds: Divide the training images, and the source's own validation images with them, into so
            many folds, one of which is for validation.
        fold: Which of the folds that is, from 0.
        split_seed: Another one holds out other images. Apart from `seed`, so that runs differing in
            seed alone are judged on the same images.
        train_fraction: Train on this share of what the split leaves, in (0, 1]; smaller shares are
            parts of larger ones.
        train_per_class: Train on so many images of each class.
        bootstrap: Train on a bootstrap sample of what is left, some images several times and others not
            at all; another `seed` draws another one. For the members of an ensemble (bagging).
        sampling: "balanced" draws all classes equally often, with replacement; "shuffled" takes every
            image once an epoch.
        sample_weights: A CSV or Parquet with the columns `id` and `weight`, such as a member of a
            boosted ensemble is given: images are drawn with replacement in proportion to their weights,
            times those of balanced sampling where that is asked for.
        image_size: Side in pixels that images are resized to; null keeps theirs.
        interpolation: How resizing fills in between pixels.
        normalization: Zero mean and unit variance by the statistics of the training images
            ("dataset"), of ImageNet ("imagenet") or of what the backbone was pretrained with
            ("backbone", the default of a pretrained one of timm's), or pixels in [0, 1] ("unit").
        augmentation: What may happen to training images.
        seed: Of order, augmentation and bootstrap sample; the experiment's.
    """

    class_names: tuple[str, ...]
    source_shape: tuple[int, int, int]
    multilabel: bool = False
    group_column: str | None = None  # what the images' groups are, such as patients, where a source knows any

    def __init__(
        self,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        train_fraction: float | None = None,
        train_per_class: int | None = None,
        bootstrap: bool = False,
        sampling: Sampling = "shuffled",
        sample_weights: str | None = None,
        image_size: int | None = None,
        interpolation: Interpolation = "bilinear",
        normalization: InputNormalization = "dataset",
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, got {batch_size}; 128 is customary")
        if image_size is not None and image_size < 1:
            raise ValueError(f"data.image_size must be at least 1 pixel, got {image_size}")
        self.batch_size = batch_size
        self.division = Division(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            folds=folds,
            fold=fold,
            seed=split_seed,
            train_fraction=train_fraction,
            train_per_class=train_per_class,
        )
        self.bootstrap = bootstrap
        self.sampling: Sampling = sampling
        self.sample_weights_file = None if sample_weights is None else Path(sample_weights).expanduser()
        self.image_size = image_size
        self.interpolation: Interpolation = interpolation
        self.normalization: InputNormalization = normalization
        self.augmentation = augmentation
        self.seed = seed
        self.splits: dict[str, ImageStore] = {}
        self.sample_weights: Tensor | None = None  # of the training images (N,), where a file gives them
        self.notes: list[str] = []  # what a user should know about the images, in sentences
        self._source: Mapping[str, ImageStore] | None = None
        self._resume_at: dict[str, Any] | None = None

    def take(self, source: Mapping[str, ImageStore]) -> None:
        """Trains on what `load` gave to another DataModule of the same source, in place of loading it."""
        self._source = source

    @abstractmethod
    def load(self) -> dict[str, ImageStore]:
        """The source's images as "train" and, where it has them, "val" and "test"; after `prepare_data`.

        Raises:
            FileNotFoundError: Files are missing.
            ValueError: Files are not what the source expects.
        """

    @abstractmethod
    def listed(self) -> dict[str, ImageStore]:
        """What `load` will give, without pixels, and without what only the files say.

        Raises:
            FileNotFoundError: Nothing is known without the files, and they are not there.
        """

    @property
    def task(self) -> TaskName:
        """What is asked of each image: one of two classes, one of more, or any of several labels."""
        if self.multilabel:
            return "multilabel"
        return "binary" if len(self.class_names) == 2 else "multiclass"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) as the network sees them."""
        channels, height, width = self.source_shape
        return (channels, self.image_size or height, self.image_size or width)

    @property
    def num_train_images(self) -> int:
        """Training images that the split leaves; needs no pixels.

        Raises:
            FileNotFoundError: The source knows nothing without its files, and they are not there.
        """
        if not self.splits:
            train = self.division.divide(self.listed(), self.class_names)["train"]
            return len(bootstrap_sample(train, self.seed) if self.bootstrap else train)
        return len(self.splits["train"])

    def setup(self, stage: str | None = None) -> None:
        """Loads and splits; a second call does nothing.

        Raises:
            ValueError: The split would judge what was not learned, or judge on what was.
        """
        if self.splits:
            return
        source = self._source or self.load()
        splits = self.division.divide(source, self.class_names)
        try:
            self.notes += check_splits(splits, self.class_names) + self.division.notes(source, splits)
        except ValueError as error:
            raise ValueError(f"the splits of {type(self).__name__} are invalid. {error}") from error
        if self.bootstrap:
            splits["train"] = bootstrap_sample(splits["train"], self.seed)
        if self.sample_weights_file is not None:
            self.sample_weights = read_sample_weights(self.sample_weights_file, splits["train"].ids)
        if self.normalization == "backbone":  # which the model knows, and tells before training
            statistics = statistics_for("unit", self.source_shape[0])
        else:
            measured = splits["train"].pixel_statistics() if self.normalization == "dataset" else None
            statistics = statistics_for(self.normalization, self.source_shape[0], measured)
        self.normalize_with(*statistics)
        self.source_fingerprints = {name: store.fingerprint() for name, store in source.items()}
        self.splits = splits

    def normalize_with(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Takes another data set's statistics: those that a trained network was trained with."""
        self.preprocess = Preprocess(mean, std, self.image_size, self.interpolation)

    # What a run records -------------------------------------------------------------------------

    def class_counts(self, split: str = "train") -> list[int]:
        """Images of each class, or with each label."""
        targets = self.splits[split].targets
        if self.multilabel:
            return [int(count) for count in targets.sum(0)]
        counts = torch.bincount(targets, minlength=len(self.class_names))
        return [int(count) for count in counts]

    def facts(self) -> dict[str, Any]:
        """Counts, statistics and fingerprints: content by pixel or file, split by id."""
        return {
            "source": type(self).__name__,
            "task": self.task,
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
            "images": {name: len(store) for name, store in self.splits.items()},
            "class_counts": {name: self.class_counts(name) for name in self.splits},
            "pixel_mean": self.preprocess.mean.flatten().tolist(),
            "pixel_std": self.preprocess.std.flatten().tolist(),
            "fingerprint": self.source_fingerprints,
            "split_fingerprint": self.division.fingerprint(self.splits),
            "notes": self.notes,
        }

    def remedies_for_waiting(self) -> list[str]:
        """What would make batches come faster, in sentences with the key; nothing for what lies in memory."""
        return []

    # Batches ------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        rank, world_size = self._place()
        loader = BatchLoader(
            self.splits["train"],
            self.batch_size,
            shuffle=True,
            weights=self._drawing_weights(),
            crop_scale=self.augmentation.resized_crop,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            device=self._device(),
        )
        if self._resume_at is not None:
            loader.load_state_dict(self._resume_at)
            self._resume_at = None
        return loader

    def _drawing_weights(self) -> Tensor | None:
        """What training images are drawn by (N,); None where an epoch takes each of them once."""
        if self.sampling == "shuffled":
            return self.sample_weights
        balancing = balancing_weights(self.splits["train"].targets)
        return balancing if self.sample_weights is None else balancing * self.sample_weights

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._evaluation_loader("val") if "val" in self.splits else []

    def test_dataloader(self) -> BatchLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> BatchLoader:
        rank, world_size = self._place()
        return BatchLoader(
            self.splits[split],
            self.evaluation_batch_size,
            rank=rank,
            world_size=world_size,
            device=self._device(),
        )

    @property
    def evaluation_batch_size(self) -> int:
        """Without gradients more images fit, and small batches would only cost time."""
        return max(self.batch_size, min(256, EVALUATED_VALUES // math.prod(self.image_shape)))

    def _place(self) -> tuple[int, int]:
        """Which of how many processes that train together this one is."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _device(self) -> torch.device:
        """Which trains."""
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def state_dict(self) -> dict[str, Any]:
        """Where training stands. Lightning saves its loader's state too, but restores it only in
        mid-epoch, and not once the schedule has asked for the number of steps."""
        loader = self.trainer.train_dataloader if self.trainer is not None else None
        return loader.state_dict() if isinstance(loader, BatchLoader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The training loader goes on from there, or the next one: Lightning mostly asks for it later."""
        loader = self.trainer.train_dataloader if self.trainer is not None else None
        if isinstance(loader, BatchLoader):
            loader.load_state_dict(state_dict)
        else:
            self._resume_at = state_dict

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 (B, C, H, W) to what the network eats, on the device that trains."""
        device = batch.images.device
        if self.preprocess.mean.device != device:
            self.preprocess.to(device)
        images = batch.images
        if self.trainer is None or not self.trainer.training:
            return batch._replace(images=self.preprocess(images))
        generator = generator_for(device, batch.seed)
        if not self.augmentation.changes_pixels:  # whole pixels may have moved
            read_ahead = not isinstance(self.splits["train"].images, Tensor)
            with one_core_left() if read_ahead else nullcontext():
                images = crop_and_flip(images, self.augmentation, generator)
                return batch._replace(images=self.preprocess(images))
        pixels = self.augment(images, generator)
        return batch._replace(images=in_pieces(self.preprocess.normalize, pixels))

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, C, H, W) to float32 in [0, 1], resized, each image changed in its own way."""
        pixels = in_pieces(self.preprocess.scale, crop_and_flip(images, self.augmentation, generator))
        return change_pixels(pixels, self.augmentation, generator)

    def augmented(self, place: int, count: int) -> Tensor:
        """Versions of one training image as training may see it: float32 (count, C, H, W) in [0, 1]."""
        images = read(
            self.splits["train"], torch.full((count,), place), self.augmentation.resized_crop, self.seed
        )
        return self.augment(images, generator_for("cpu", self.seed))
