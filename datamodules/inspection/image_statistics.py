"""Brightness, contrast, thumbnails, hashes, outlier scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Iglewicz and Hoaglin (1993) name 3.5 for normal samples; photographs have heavier tails.
MIN_SCORE = 5.0
MIN_SIDE, MAX_SIDE = 8, 32  # of thumbnails
CHUNK_BYTES = 2**24  # of uint8 pixels; as float32, and once more in grey, some hundred MB
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"


class ImageArray(Protocol):
    """uint8 images (N, C, H, W), in memory or on disk, that a tensor of places gives a batch of."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, places: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Measures:
    """Of N images.

    Attributes:
        brightness: Mean of the grey pixels, in [0, 1], (N,).
        contrast: Standard deviation of the grey pixels, of pixels in [0, 1], (N,).
        channel_means: Of pixels in [0, 1], (N, C).
        channel_mean_squares: Of pixels in [0, 1], (N, C).
        thumbnails: Grey, uint8 (N, S, S), with S from 8 to 32.
        digests: A hash of each image's pixels: equal exactly where they are.
    """

    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]
    channel_means: NDArray[np.float64]
    channel_mean_squares: NDArray[np.float64]
    thumbnails: NDArray[np.uint8]
    digests: list[bytes]

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over all pixels of all images."""
        mean = self.channel_means.mean(0)
        variance = self.channel_mean_squares.mean(0) - mean**2
        return mean.tolist(), np.sqrt(variance.clip(min=0)).tolist()


def measure(images: ImageArray) -> Measures:
    """Reads all images once, a few at a time."""
    count, channels, height, width = images.shape
    if count == 0:
        raise ValueError("there are no images to measure")
    at_once = max(1, CHUNK_BYTES // (channels * height * width))
    chunks = torch.split(torch.arange(count), at_once)
    parts = [_measure(images[places]) for places in chunks]
    return Measures(
        brightness=np.concatenate([part.brightness for part in parts]),
        contrast=np.concatenate([part.contrast for part in parts]),
        channel_means=np.concatenate([part.channel_means for part in parts]),
        channel_mean_squares=np.concatenate([part.channel_mean_squares for part in parts]),
        thumbnails=np.concatenate([part.thumbnails for part in parts]),
        digests=[digest for part in parts for digest in part.digests],
    )


def _measure(images: Tensor) -> Measures:
    images = images.contiguous()
    pixels = images.float() / 255  # (B, C, H, W)
    grey = to_grey(pixels)  # (B, H, W)
    side = max(MIN_SIDE, min(MAX_SIDE, max(images.shape[2:])))  # S; larger than the image would add nothing
    thumbnails = F.interpolate(grey.unsqueeze(1), (side, side), mode="bilinear", antialias=True).squeeze(1)
    return Measures(
        brightness=grey.mean((1, 2)).double().numpy(),
        contrast=grey.std((1, 2), correction=0).double().numpy(),
        channel_means=pixels.mean((2, 3)).double().numpy(),
        channel_mean_squares=pixels.square().mean((2, 3)).double().numpy(),
        thumbnails=thumbnails.mul(255).round().byte().numpy(),
        digests=[hashlib.blake2b(image, digest_size=16).digest() for image in images.numpy()],
    )


def to_grey(pixels: Tensor) -> Tensor:
    """Float (B, C, H, W) to (B, H, W): luma of three channels, else their mean."""
    if pixels.shape[1] == 3:
        return torch.einsum("bchw,c->bhw", pixels, torch.tensor(LUMA))
    return pixels.mean(1)


def robust_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many standard deviations each value (N,) lies from the median, by estimates outliers can't move.

    The standard deviation is estimated from the median absolute deviation or, where more than half of the
    values are one and the same, from the mean absolute deviation (Iglewicz and Hoaglin 1993). Where
    all values are the same, all scores are 0.

    >>> robust_scores(np.array([1.0, 2.0, 3.0, 4.0, 100.0])).round(1).tolist()
    [-1.3, -0.7, 0.0, 0.7, 65.4]
    >>> robust_scores(np.array([5.0, 5.0, 5.0])).tolist()
    [0.0, 0.0, 0.0]
    """
    deviations = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(deviations)) or 1.2533 * np.abs(deviations).mean()
    return deviations / spread if spread > 0 else np.zeros_like(deviations)
