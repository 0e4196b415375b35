"""Caches frozen-backbone features for linear probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import psutil
import pytorch_lightning as pl
import torch

from darkroom.datamodules.augmentation.pipeline import Augmentation
from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.loader import Batch, BatchLoader
from darkroom.lightning_modules.backbones.head import head_inputs, is_head_of
from darkroom.lightning_modules.classifier import ImageClassifier

MEMORY_SHARE = 0.25  # of what is free, that features may take


def have_constant_features(model: ImageClassifier, data: ImageDataModule) -> bool:
    """Whether the head gets the same features of an image in each epoch, and they are to be kept."""
    tuning = model.finetuning
    mixed = model.hparams["mixup"] or model.hparams["cutmix"]
    is_probe = tuning.strategy == "linear_probe" and tuning.cache_features
    return is_probe and data.augmentation == Augmentation() and not mixed


def training_batches(model: ImageClassifier, data: ImageDataModule) -> pl.LightningDataModule:
    """What the model is trained on: the data, or features of it where they are the same in each epoch."""
    return FeatureData(data, model) if have_constant_features(model, data) else data


class FeatureData(pl.LightningDataModule):
    """The batches of a DataModule with the trunk's features (B, F) in place of the images.

    Computed when the trainer first asks for batches, with the network where it trains and at its
    precision. Where they can't be, or don't fit into memory, batches have their images.

    Args:
        data: Whose training and validation images are the same in each epoch.
        model: What is trained on them; all but its head is frozen.
    """

    def __init__(self, data: ImageDataModule, model: ImageClassifier) -> None:
        super().__init__()
        self.data = data
        self.model = model
        self._stores: dict[str, ImageStore] | None = None

    def setup(self, stage: str | None = None) -> None:
        self.data.trainer = self.trainer  # it asks which share of the batches this process gets

    def train_dataloader(self) -> BatchLoader:
        loader = self.data.train_dataloader()
        return self._on_features(loader, "train")

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        loader = self.data.val_dataloader()
        return self._on_features(loader, "val") if isinstance(loader, BatchLoader) else loader

    def _on_features(self, loader: BatchLoader, split: str) -> BatchLoader:
        if self._stores is None:
            self._stores = self._compute()
        loader.store = self._stores[split]
        return loader

    def _compute(self) -> dict[str, ImageStore]:
        stores: dict[str, ImageStore] = {
            split: store for split, store in self.data.splits.items() if split in ("train", "val")
        }
        if self._can_be_kept(stores):
            stores = {split: replace(store, images=self._features(store)) for split, store in stores.items()}
        self.model.finetuning.apply(self.model.network, epoch=0)  # the modes of training again
        return stores

    def _can_be_kept(self, stores: Mapping[str, ImageStore]) -> bool:
        """Whether features are all that the head needs, and fit into memory; asked of the first images."""
        model = self.model
        images, features = next(self._batches(stores["train"]))
        if features is None:
            return False
        size = features[0].numel() * features.element_size() * sum(map(len, stores.values()))
        if size > MEMORY_SHARE * psutil.virtual_memory().available:
            return False
        model.finetuning.apply(model.network, epoch=0)
        with self._precision():
            return is_head_of(model.network, images, features, model.hparams["dropout"])

    def _features(self, store: ImageStore) -> torch.Tensor:
        """Returns the features of all images of a split, (N, F), in the processor's memory."""
        kept = []
        for _, features in self._batches(store):
            assert features is not None
            kept.append(features.cpu())
        return torch.cat(kept)

    def _batches(self, store: ImageStore) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Normalised images (B, C, H, W) and their features (B, F), if the head gets any, batch by batch."""
        device = self.model.device
        self.data.preprocess.to(device)
        for batch in BatchLoader(store, self.data.evaluation_batch_size):
            images = self.data.preprocess(batch.images.to(device))
            with self._precision():
                yield images, head_inputs(self.model.network, images)

    def _precision(self) -> AbstractContextManager[None]:
        assert self.trainer is not None
        context: AbstractContextManager[None] = self.trainer.precision_plugin.forward_context()
        return context

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if batch.images.ndim == 2:
            return batch
        return self.data.on_after_batch_transfer(batch, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.data.load_state_dict(state_dict)
