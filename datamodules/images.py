"""Images that came from files, read by their places from a cache or from the files themselves."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules.crops import draw_boxes
from datamodules.sizing import Sizing, center, fitted, resize

Bytes = NDArray[np.uint8]

RESIDENT_BYTES = 256 * 2**20  # of the cache that a process keeps mapped before it lets go of them


class PixelFile:
    """A file of pixels, mapped into memory: one copy in the page cache for all processes.

    Pages that were read count as this process's memory until it lets go of them, which it does now and
    then; they stay in the page cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes: Bytes | None = None
        self._map: mmap.mmap | None = None
        self._touched = 0
        self._mapped()  # now: a newer cache may take this one's place, which a mapping outlives

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_bytes": None, "_map": None, "_touched": 0}

    def view(self, offset: int, height: int, width: int, channels: int) -> Bytes:
        """One image, (H, W, C), without a copy."""
        pixels = self._mapped()[offset : offset + height * width * channels]
        return pixels.reshape(height, width, channels)

    def touch(self, count: int) -> None:
        """Says that so many bytes were read."""
        self._touched += count
        if self._touched >= RESIDENT_BYTES and self._map is not None:
            self._touched = 0
            self._map.madvise(mmap.MADV_DONTNEED)

    def _mapped(self) -> Bytes:
        if self._bytes is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(self._map, np.uint8)
        return self._bytes


@dataclass(frozen=True)
class DecodedImages:
    """N images at one size, each cut from what is kept of it: in the cache, or decoded anew.

    Attributes:
        index: One row for each original: where its pixels lie and how large it is.
        sizing: What is kept of an image, and what evaluation sees of that.
        rows: N places in the index.
        file: The cache; None where images are decoded each time.
        read: The encoded image at a row of the index.
    """

    index: pd.DataFrame
    sizing: Sizing
    rows: NDArray[np.int64]
    file: PixelFile | None
    read: Callable[[int], bytes | Image.Image]

    @classmethod
    def of(
        cls,
        index: pd.DataFrame,
        sizing: Sizing,
        pixels: Path | None,
        read: Callable[[int], bytes | Image.Image],
    ) -> DecodedImages:
        """All images of an index, in order."""
        return cls(index, sizing, np.arange(len(index)), PixelFile(pixels) if pixels else None, read)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _layout(self) -> NDArray[np.int64]:
        return self.index[["offset", "height", "width"]].to_numpy(np.int64)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, S, S)."""
        return len(self), self.sizing.channels, self.sizing.size, self.sizing.size

    def __getitem__(self, places: Tensor) -> Tensor:
        """What evaluation sees at the places (B,): uint8 (B, C, S, S)."""
        return self._gather(places, lambda image, _: center(image, self.sizing.size))

    def random_resized_crops(
        self, places: Tensor, scale: tuple[float, float], generator: torch.Generator
    ) -> Tensor:
        """A crop of random area and shape at each place (B,), resized: uint8 (B, C, S, S)."""
        shape = (self.sizing.size, self.sizing.size)
        kept = self._column("height", "width")[places]
        boxes = draw_boxes(kept, scale, generator).tolist()

        def crop(image: Bytes, number: int) -> Bytes:
            top, left, height, width = boxes[number]
            part = np.array(image[top : top + height, left : left + width])  # torch wants it writable
            resized: Bytes = resize(torch.from_numpy(part), shape, self.sizing.interpolation).numpy()
            return resized

        return self._gather(places, crop)

    def select(self, places: Tensor) -> DecodedImages:
        """Those at the places, without a copy of their pixels."""
        return replace(self, rows=self.rows[places.numpy()])

    def joined(self, other: DecodedImages) -> DecodedImages:
        """These and then those, of the same files."""
        assert other.index is self.index
        return replace(self, rows=np.concatenate([self.rows, other.rows]))

    def original_sizes(self) -> Tensor:
        """Heights and widths in the files, int64 (N, 2)."""
        return self._column("original_height", "original_width")

    def content_hashes(self) -> Sequence[str]:
        """N hashes, equal exactly where files have the same bytes."""
        hashes: list[str] = self.index["content"].iloc[self.rows].tolist()
        return hashes

    def _column(self, *names: str) -> Tensor:
        return torch.from_numpy(self.index[list(names)].to_numpy(np.int64)[self.rows])

    def _gather(self, places: Tensor, cut: Callable[[Bytes, int], Bytes]) -> Tensor:
        """What `cut` makes of each kept image and its number in the batch: uint8 (B, C, S, S)."""
        _, channels, size, _ = self.shape
        batch = np.empty((len(places), size, size, channels), np.uint8)
        rows = self.rows[places.numpy()].tolist()

        def work(numbers: range) -> None:
            for number in numbers:
                batch[number] = cut(self._kept(rows[number]), number)

        threads = min(torch.get_num_threads(), len(rows))
        if threads <= 1:
            work(range(len(rows)))
        else:
            pool = _pool(os.getpid(), threads)
            list(pool.map(work, [range(first, len(rows), threads) for first in range(threads)]))
        if self.file is not None:
            self.file.touch(batch.size)
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def _kept(self, row: int) -> Bytes:
        """The image at a row of the index, (h, w, C)."""
        if self.file is None:
            return fitted(self.read(row), self.sizing)
        offset, height, width = self._layout[row].tolist()
        return self.file.view(offset, height, width, self.sizing.channels)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process, none of which starts a team of its own."""
    return ThreadPoolExecutor(threads, "images", initializer=torch.set_num_threads, initargs=(1,))
