"""A loader that makes the trainer wait."""

from __future__ import annotations

import time

import torch

from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.loader import Batch, BatchLoader

LATE_SECONDS = 0.02


class LateLoader(BatchLoader):
    """Has each batch come late."""

    def _share(self, store: ImageStore, chunk: torch.Tensor, epoch: int, step: int) -> Batch:
        time.sleep(LATE_SECONDS)
        return super()._share(store, chunk, epoch, step)
