"""ImageStore: images with targets, ids and groups."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch_ops import take
from .file_images import FileImages

STATISTICS_IMAGES = 20_000  # of images that lie on disk; the third digit of a mean does not change with more
# uint8 (N, C, H, W), read by places (B,): all of them in memory, or what came from files.
StoredImages = Tensor | FileImages


@dataclass(frozen=True)
class ImageStore:
    """A part of a data set.

    Attributes:
        images: uint8 (N, C, H, W).
        targets: Class indices, int64 (N,); of multi-label tasks float32 (N, K) of 0 and 1.
        ids: N names, each unique within the data set.
        groups: N names of what must not stand on both sides of a split, such as patients.
    """

    images: StoredImages
    targets: Tensor
    ids: Sequence[str]
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, places: Tensor) -> Tensor:
        """uint8 (B, C, H, W) at the places, int64 (B,)."""
        return take(self.images, places) if isinstance(self.images, Tensor) else self.images[places]

    def subset(self, mask: Tensor) -> ImageStore:
        """The samples where `mask` (N,) is true, in order; all of them without a copy."""
        return self if bool(mask.all()) else self.select(mask.nonzero().flatten())

    def select(self, places: Tensor) -> ImageStore:
        """The samples at the places (M,), in that order."""
        images = take(self.images, places) if isinstance(self.images, Tensor) else self.images.select(places)
        listed = places.tolist()
        return ImageStore(
            images=images,
            targets=self.targets[places],
            ids=[self.ids[place] for place in listed],
            groups=None if self.groups is None else [self.groups[place] for place in listed],
        )

    @property
    def original_sizes(self) -> Tensor | None:
        """Heights and widths in the files, (N, 2); None where the images never were files."""
        return None if isinstance(self.images, Tensor) else self.images.original_sizes()

    @property
    def content_hashes(self) -> Sequence[str] | None:
        """N hashes of the files; None where the images never were files."""
        return None if isinstance(self.images, Tensor) else self.images.content_hashes()

    def fingerprint(self) -> str:
        """A hash of every pixel, label and id: equal exactly where the data is."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((tuple(self.images.shape), list(self.ids))).encode())
        if isinstance(self.images, Tensor):
            digest.update(self.images.contiguous().numpy().data)
        else:  # the bytes that pixels come from, and that are hashed once
            digest.update("\n".join(self.images.content_hashes()).encode())
        digest.update(self.targets.contiguous().numpy().data)
        return digest.hexdigest()

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of pixels scaled to [0, 1].

        Of images on disk at most 20,000 are read, evenly spaced.
        """
        channels = self.images.shape[1]
        total = torch.zeros(channels, dtype=torch.float64)
        total_of_squares = torch.zeros(channels, dtype=torch.float64)
        count = 0
        for places in torch.split(self._measured(), 4096 if isinstance(self.images, Tensor) else 256):
            pixels = self.pixels(places).float().transpose(0, 1).reshape(channels, -1)  # (C, N*H*W)
            count += pixels.shape[1]
            total += pixels.sum(1, dtype=torch.float64)
            total_of_squares += pixels.square_().sum(1, dtype=torch.float64)
        mean = total / count
        std = (total_of_squares / count - mean.square()).clamp(min=1e-6).sqrt()
        return tuple((mean / 255).tolist()), tuple((std / 255).tolist())

    def _measured(self) -> Tensor:
        if isinstance(self.images, Tensor) or len(self) <= STATISTICS_IMAGES:
            return torch.arange(len(self))
        return torch.linspace(0, len(self) - 1, STATISTICS_IMAGES).long()


def without_pixels(ids: Sequence[str], targets: Tensor | None = None) -> ImageStore:
    """What is known of images before they are read: ids, and labels where they are known too."""
    labels = torch.zeros(len(ids), dtype=torch.int64) if targets is None else targets
    return ImageStore(torch.empty(len(ids), 0, dtype=torch.uint8), labels, ids)


def join(first: ImageStore, second: ImageStore) -> ImageStore:
    """Both as one, for what divides anew what came divided."""
    if isinstance(first.images, Tensor):
        assert isinstance(second.images, Tensor)  # they are of one source
        images: StoredImages = torch.cat([first.images, second.images])
    else:
        assert not isinstance(second.images, Tensor)
        images = first.images.joined(second.images)
    grouped = first.groups is not None and second.groups is not None
    return ImageStore(
        images=images,
        targets=torch.cat([first.targets, second.targets]),
        ids=[*first.ids, *second.ids],
        groups=[*(first.groups or ()), *(second.groups or ())] if grouped else None,
    )
