"""Resizing and cropping geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Decoding = Literal["exact", "fast"]


@dataclass(frozen=True)
class Sizing:
    """How large images are stored and shown to the network.

    Args:
        size: Side in pixels of what the network sees.
        resize: "squash" resizes to size x size, whatever the aspect; "crop" resizes the shorter side and
            keeps the aspect, and evaluation sees the centre.
        crop_fraction: With "crop", the share of the shorter side that evaluation sees, in (0, 1]; the
            shorter side is size / crop_fraction, rounded down. timm calls it crop_pct.
        interpolation: Between pixels; "bilinear" and "bicubic" are antialiased.
        channels: 3 for RGB, 1 for grey.
        decoding: "exact" decodes JPEGs at their full size and resizes as Pillow does, which gives timm's
            pixels to the last bit. "fast" decodes large JPEGs at a reduced size and resizes by torch's uint8
            kernels; it rounds the shorter side to the nearest pixel, as all runs of record version 1.
    """

    size: int
    resize: Literal["squash", "crop"]
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bilinear"
    channels: Literal[1, 3] = 3
    decoding: Decoding = "exact"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if self.resize not in ("squash", "crop"):
            raise ValueError(f'resize must be "squash" or "crop", got {self.resize!r}')
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(
                f"crop_fraction must lie in (0, 1], got {self.crop_fraction}; 0.875 is customary"
            )
        if self.interpolation not in ("bilinear", "bicubic", "nearest"):
            raise ValueError(
                f'interpolation must be "bilinear", "bicubic" or "nearest", got {self.interpolation!r}'
            )
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if self.decoding not in ("exact", "fast"):
            raise ValueError(f'decoding must be "exact" or "fast", got {self.decoding!r}')

    @property
    def shorter_side(self) -> int:
        """The shorter side of stored images, in pixels."""
        if self.resize == "squash":
            return self.size
        shorter = self.size / self.crop_fraction
        return round(shorter) if self.decoding == "fast" else math.floor(shorter)  # as timm rounds

    @property
    def decoded_at_least(self) -> int | None:
        """Pixels that the shorter side of a JPEG must keep when it is decoded; None decodes all of them."""
        return self.shorter_side if self.decoding == "fast" else None


def fitted_size(height: int, width: int, sizing: Sizing) -> tuple[int, int]:
    """Height and width that an image is stored with.

    >>> fitted_size(375, 500, Sizing(224, "crop"))
    (256, 341)
    >>> fitted_size(375, 500, Sizing(224, "squash"))
    (224, 224)
    """
    if sizing.resize == "squash":
        return sizing.size, sizing.size
    # Rounded down as torchvision's Resize does, so that features of its models stay comparable.
    longer = int(sizing.shorter_side * max(height, width) / min(height, width))
    return (sizing.shorter_side, longer) if height <= width else (longer, sizing.shorter_side)


def fitted_sizes(sizes: Tensor, sizing: Sizing) -> Tensor:
    """`fitted_size` of many heights and widths, int64 (N, 2), a hundred times faster.

    >>> fitted_sizes(torch.tensor([[375, 500], [640, 480]]), Sizing(224, "crop")).tolist()
    [[256, 341], [341, 256]]
    """
    if sizing.resize == "squash":
        return torch.full_like(sizes, sizing.size)
    shorter, longer = sizes.aminmax(dim=1, keepdim=True)
    scaled = (sizing.shorter_side * longer.double() / shorter.clamp(min=1)).long()
    return torch.where(sizes == shorter, sizing.shorter_side, scaled)


def fit(
    image: NDArray[np.uint8], sizing: Sizing, original_size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """uint8 (H, W, C) as it is stored: (S, S, C) or, with "crop", the shorter side resized.

    Args:
        image: At its own size, or decoded at a fraction of it.
        sizing: What to fit it to.
        original_size: Height and width it had before it was decoded at a fraction, whose rounding
            would change the aspect.
    """
    original_height, original_width = original_size or (image.shape[0], image.shape[1])
    height, width = fitted_size(original_height, original_width, sizing)
    if sizing.decoding == "exact":
        return _resize_as_pillow(image, height, width, sizing.interpolation)
    batch = resize(to_batch(image), height, width, sizing.interpolation).numpy()
    fitted: NDArray[np.uint8] = batch[0].transpose(1, 2, 0)
    return fitted


def _resize_as_pillow(
    image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """uint8 (H, W, C) to (height, width, C).

    By Pillow itself, which timm and torchvision call for images in files: torch's kernels differ by up to
    two of 255 levels, and by more on processors without AVX2.
    """
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    resized = picture.resize((width, height), Image.Resampling[interpolation.upper()])
    return np.array(resized).reshape(height, width, image.shape[2])


def to_batch(image: NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W, C) as (1, C, H, W), channels last; a view."""
    # Of NumPy's making: after each call of torch the threads that decode compete for Python's lock.
    return torch.from_numpy(image.reshape(1, *image.shape).transpose(0, 3, 1, 2))


def centre_box(height: int, width: int, sizing: Sizing) -> tuple[int, int, int, int]:
    """Top, left, height and width of the centre of a stored image.

    >>> centre_box(256, 341, Sizing(224, "crop"))
    (16, 58, 224, 224)
    """
    # Halves round to even, as in torchvision's CenterCrop.
    top, left = round((height - sizing.size) / 2), round((width - sizing.size) / 2)
    return top, left, sizing.size, sizing.size


def resize(image: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """uint8 (1, C, H, W) to (1, C, height, width); fastest with channels last, also of a larger image's."""
    if image.shape[2:] == (height, width):
        return image
    if interpolation == "nearest":
        return F.interpolate(image, (height, width), mode="nearest-exact")
    return F.interpolate(image, (height, width), mode=interpolation, antialias=True)
