"""Decoded images as one uint8 array, with their labels and ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageStore:
    """Images decoded once and kept as they are on disk.

    Attributes:
        images: uint8 (N, C, H, W).
        targets: Class indices, int64 (N,).
        ids: N names, each unique within the data set.
    """

    images: Tensor
    targets: Tensor
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, mask: Tensor) -> ImageStore:
        """The samples where `mask` (N,) is true, in order; all of them without a copy."""
        if bool(mask.all()):
            return self
        kept = mask.nonzero().flatten()
        return ImageStore(self.images[kept], self.targets[kept], [self.ids[i] for i in kept.tolist()])

    def fingerprint(self) -> str:
        """A hash of every pixel, label and id: equal exactly where the data is."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((tuple(self.images.shape), list(self.ids))).encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.targets.contiguous().numpy().data)
        return digest.hexdigest()

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of pixels scaled to [0, 1]."""
        channels = self.images.shape[1]
        total = torch.zeros(channels, dtype=torch.float64)
        total_of_squares = torch.zeros(channels, dtype=torch.float64)
        for chunk in torch.split(self.images, 4096):
            pixels = chunk.float().transpose(0, 1).reshape(channels, -1)  # (C, N*H*W)
            total += pixels.sum(1, dtype=torch.float64)
            total_of_squares += pixels.square_().sum(1, dtype=torch.float64)
        count = self.images.numel() / channels
        mean = total / count
        std = (total_of_squares / count - mean.square()).clamp(min=1e-6).sqrt()
        return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
