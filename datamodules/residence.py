"""Where images lie while they are trained on: in the host's memory, or in that of the GPU that trains."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from datamodules.store import ImageStore

GPU_SHARE = 1 / 16  # of its free memory: networks need the rest, and several trials may share a GPU


def near(store: ImageStore, device: torch.device) -> ImageStore:
    """Its images and targets on the device, where there is room for them; else itself."""
    images = store.images
    if not isinstance(images, Tensor) or images.numel() * images.element_size() > room_on(device):
        return store
    return replace(store, images=images.to(device), targets=store.targets.to(device))


def room_on(device: torch.device) -> float:
    """Bytes that images may take of the device's own memory; none where it has no memory of its own."""
    return torch.cuda.mem_get_info(device)[0] * GPU_SHARE if device.type == "cuda" else 0
