"""From uint8 images to what a network eats: resized, scaled, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batch_ops import images_at_once, in_pieces
from .images.resizing import Interpolation

InputNormalization = Literal["dataset", "imagenet", "backbone", "unit"]
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Preprocess(nn.Module):
    """uint8 (B, C, H, W) to normalised float32 (B, C, S, S); the same code in training and serving.

    Args:
        mean: Of each channel, of pixels in [0, 1].
        std: Of each channel, of pixels in [0, 1].
        image_size: Side S after resizing, in pixels; None keeps H and W.
        interpolation: How resizing fills in between pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.image_size = image_size
        self.interpolation = interpolation

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return self.normalize(self.scale(images))
        if self.image_size is not None and images.shape[2:] != (self.image_size, self.image_size):
            return in_pieces(lambda piece: self.normalize(self.scale(piece)), images)
        return self._in_one_buffer(images)

    def _in_one_buffer(self, images: Tensor) -> Tensor:
        """The same to the last bits, a few images at a time and in place, within the processor's cache."""
        source = images
        factor, shift = 1 / (255 * self.std), -self.mean / self.std  # two divisions took twice the time
        last = not images.is_contiguous()
        if last:  # channels last in memory: along whole rows
            source = images.permute(0, 2, 3, 1).flatten(2)  # (B, S, S * C)
            factor, shift = (each.flatten().repeat(images.shape[3]) for each in (factor, shift))
        pixels = torch.empty(source.shape)
        step = images_at_once(images)
        for start in range(0, len(images), step):
            piece = pixels[start : start + step]
            piece.copy_(source[start : start + step]).mul_(factor).add_(shift)
        return pixels.view(images.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2) if last else pixels

    def scale(self, images: Tensor) -> Tensor:
        """Pixels as float32 in [0, 1], (B, C, S, S)."""
        pixels = images.to(torch.float32, copy=True).div_(255)
        if self.image_size is None:
            return pixels
        size = (self.image_size, self.image_size)
        if pixels.shape[2:] == size:
            return pixels
        if self.interpolation == "nearest":
            return F.interpolate(pixels, size=size, mode="nearest-exact")
        resized = F.interpolate(pixels, size=size, mode=self.interpolation, antialias=True)
        return resized.clamp(0, 1) if self.interpolation == "bicubic" else resized  # which overshoots

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] to about zero mean and unit variance."""
        if torch.compiler.is_compiling() or pixels.is_contiguous():
            return (pixels - self.mean).div_(self.std)
        # Channels last in memory: along whole rows, as three values at a time would take three times as long.
        rows = pixels.permute(0, 2, 3, 1).flatten(2)  # (B, S, S * C)
        mean, std = (each.flatten().repeat(pixels.shape[3]) for each in (self.mean, self.std))
        normalized: Tensor = (rows - mean).div_(std)
        return normalized.reshape(pixels.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def statistics_for(
    normalization: InputNormalization, channels: int, measured: Statistics | None = None
) -> Statistics:
    """The mean and standard deviation that a normalisation's name stands for.

    Args:
        normalization: Whose they are; "backbone" is known to the model alone.
        channels: 1 or 3.
        measured: Of the data set.
    """
    if normalization == "dataset":
        assert measured is not None
        return measured
    if normalization == "unit":
        return (0.0,) * channels, (1.0,) * channels
    mean, std = IMAGENET_STATISTICS
    if channels == 1:  # grey images take the average over colours
        return (sum(mean) / 3,), (sum(std) / 3,)
    return mean, std
