"""A multi-label data set in memory: noise, with a bright bar for each label that an image has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from darkroom.datamodules import ImageDataModule
from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.splitting.splitters import hold_out


class LabelledBars(ImageDataModule):
    """Labels of rising frequency, of which any number may be in one image.

    Args:
        brightness: Of the bars, above the noise: how hard it is.
    """

    class_names = ("left", "middle", "right")
    source_shape = (1, 8, 8)
    num_source_images = 200
    multilabel = True

    def __init__(
        self, brightness: int = 80, batch_size: int = 32, val_fraction: float = 0.25, **arguments: Any
    ) -> None:
        super().__init__(batch_size=batch_size, val_fraction=val_fraction, **arguments)
        self.brightness = brightness

    @property
    def task(self) -> Literal["multilabel"]:
        return "multilabel"

    def load(self) -> dict[str, ImageStore]:
        return {"train": self._make(200, "train", 0), "test": self._make(90, "test", 1)}

    def listed(self) -> dict[str, ImageStore]:
        return self.load()

    def train_ids(self) -> Sequence[str]:
        return [f"train/{index}" for index in range(200)]

    def class_counts(self, split: str = "train") -> list[int]:
        return [int(count) for count in self.splits[split].targets.sum(0)]

    def _in_validation(self, ids: Sequence[str], targets: NDArray[Any]) -> NDArray[np.bool_]:
        nothing = np.zeros(len(ids), dtype=np.int64)
        return hold_out(ids, nothing, self.val_fraction, purpose="val", seed=self.split_seed)

    def _make(self, count: int, name: str, seed: int) -> ImageStore:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(120, (count, *self.source_shape), generator=generator, dtype=torch.uint8)
        targets = (torch.rand(count, 3, generator=generator) < torch.tensor([0.2, 0.4, 0.6])).float()
        for label in range(3):
            images[targets[:, label] > 0, 0, 2 * label + 1] += self.brightness
        return ImageStore(images, targets, [f"{name}/{index}" for index in range(count)])
