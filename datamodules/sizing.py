"""The size that images of any shape are brought to, the same in training caches and for single files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules.decoding import Channels, decode
from datamodules.preprocess import Interpolation


@dataclass(frozen=True)
class Sizing:
    """What becomes of an image's shape.

    Attributes:
        size: Side S of what the network sees, in pixels.
        resize: "squash" makes the image S x S whatever its shape; "crop" brings the shorter side to
            S / crop_fraction and keeps the shape, of which evaluation takes the central S x S.
        crop_fraction: Share of the shorter side that evaluation sees.
        interpolation: How resizing fills in between pixels; with a low-pass where it shrinks.
        channels: 3 for RGB, 1 for grey.
    """

    size: int
    resize: Literal["squash", "crop"] = "crop"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bilinear"
    channels: Channels = 3

    @property
    def shorter_side(self) -> int:
        """Of what is kept of an image."""
        return self.size if self.resize == "squash" else round(self.size / self.crop_fraction)

    def shape_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is kept of an image.

        >>> Sizing(224).shape_of(500, 375)
        (341, 256)
        >>> Sizing(224, "squash").shape_of(500, 375)
        (224, 224)
        """
        if self.resize == "squash":
            return self.size, self.size
        scale = self.shorter_side / min(height, width)
        return max(self.size, round(height * scale)), max(self.size, round(width * scale))


def fitted(data: bytes | Image.Image, sizing: Sizing) -> NDArray[np.uint8]:
    """What is kept of an encoded image: (h, w, C).

    Raises:
        BadImageError: It is no image, or not all of one.
    """
    image = np.ascontiguousarray(decode(data, sizing.channels, sizing.shorter_side))
    if not image.flags.writeable:  # torch wants memory that it might write to
        image = image.copy()
    kept: NDArray[np.uint8] = fit(torch.from_numpy(image), sizing).numpy()
    return np.ascontiguousarray(kept)


def fit(image: Tensor, sizing: Sizing) -> Tensor:
    """What is kept of an image: uint8 (H, W, C) to (h, w, C)."""
    shape = sizing.shape_of(image.shape[0], image.shape[1])
    return image if image.shape[:2] == shape else resize(image, shape, sizing.interpolation)


def center(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """What evaluation sees: the central part, (h, w, C) to (size, size, C), without a copy."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def resize(image: Tensor, shape: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """uint8 (H, W, C) to uint8 (*shape, C); as a channels-last view, which is the fast one."""
    batch = image.permute(2, 0, 1).unsqueeze(0)  # (1, C, H, W)
    if interpolation == "nearest":
        resized = F.interpolate(batch, shape, mode="nearest-exact")
    else:
        resized = F.interpolate(batch, shape, mode=interpolation, antialias=True)
    return torch.squeeze(resized, 0).permute(1, 2, 0)
