"""Batches of uint8 pixels, from a memory-mapped cache or from the files themselves."""

from __future__ import annotations

import mmap
import threading
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..threads import pool
from .decoding import BadImageError, decode_with_size
from .index import BLOCK_BYTES, ImageIndex, byte_offsets
from .random_crops import draw_boxes
from .readers import Originals
from .resizing import Sizing, centre_box, fit, resize, to_batch

# Pages of the cache that were read count as this process's memory until it lets go of them; they stay
# in the page cache, from which they come back without reading the disk.
RESIDENT_BYTES = 256 * 2**20
Box = Sequence[int]  # top, left, height, width, in pixels


class FittedPixels(Protocol):
    """Where fitted images come from."""

    def window(self, place: int, box: Box) -> Tensor:
        """A part of an image, uint8 (1, C, h, w), channels last; may be a view not to be written to."""


class MappedPixels:
    """A cache's file of pixels, memory-mapped: one copy for all processes of the machine.

    Args:
        path: The file: fitted images one behind the other, each (h, w, C).
        fitted_sizes: Heights and widths, int64 (N, 2).
        channels: C.
        checksums: CRC-32 of each block of `BLOCK_BYTES`; each is checked when it is first touched.
        ids: Of the images.
    """

    def __init__(
        self,
        path: Path,
        fitted_sizes: Tensor,
        channels: int,
        checksums: Sequence[int],
        ids: Sequence[str],
    ) -> None:
        self.path = path
        self.ids = ids
        self._checksums = checksums
        self.channels = channels
        # NumPy's, of which a single number is had ten times faster.
        self._widths = fitted_sizes[:, 1].numpy()
        self._offsets = byte_offsets(fitted_sizes, channels).numpy()
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._touched = 0
        self._is_checked = np.zeros(len(self._checksums), bool)
        self._map()

    def _map(self) -> None:
        with self.path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")  # nor is it ever written to
            self._bytes = torch.from_numpy(np.frombuffer(self._mapped, dtype=np.uint8))

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_lock", "_mapped", "_bytes", "_is_checked")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def window(self, place: int, box: Box) -> Tensor:
        top, left, height, width = box
        row = int(self._widths[place]) * self.channels  # in bytes
        self._touch(height * row)
        first = int(self._offsets[place]) + top * row
        self._check(first, first + height * row)
        start = first + left * self.channels
        shape = (1, self.channels, height, width)
        return self._bytes.as_strided(shape, (height * row, 1, row, self.channels), start)

    def rows(self, places: Tensor, side: int) -> Tensor:
        """Copies of images that all are (side, side, C), as (B, side, side, C)."""
        size = side * side * self.channels
        self._touch(len(places) * size)
        starts = torch.from_numpy(self._offsets)[places]
        if not self._is_checked.all():
            for start in starts.tolist():
                self._check(start, start + size)
        rows = self._bytes.view(-1, size).index_select(0, starts // size)
        return rows.view(-1, side, side, self.channels)

    def _check(self, start: int, end: int) -> None:
        """Compares blocks with their checksums, once in a process, before any of their bytes are used.

        Two threads may check a block at the same time, which does no harm.

        Raises:
            BadImageError: One is not as it was written.
        """
        first, last = start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        if self._is_checked[first : last + 1].all():
            return
        for block in range(first, last + 1):
            if self._is_checked[block]:
                continue
            content = memoryview(self._mapped)[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            self._touch(len(content))
            if zlib.crc32(content) != self._checksums[block]:
                image = int(np.searchsorted(self._offsets, max(start, block * BLOCK_BYTES), side="right")) - 1
                raise BadImageError(
                    f"the cache file {self.path} is damaged: the pixels of {self.ids[image]}, or of images "
                    f"beside it, are not those that were written. Delete the folder {self.path.parent}; "
                    "the images are then decoded anew"
                )
            self._is_checked[block] = True

    def _touch(self, size: int) -> None:
        with self._lock:
            self._touched += size
            if self._touched < RESIDENT_BYTES:
                return
            self._touched = 0
        self._mapped.madvise(mmap.MADV_DONTNEED)


class StreamedPixels:
    """Decodes and fits each image whenever it is asked for; the pixels are those of the cache."""

    def __init__(self, originals: Originals, sizing: Sizing) -> None:
        self.originals = originals
        self.sizing = sizing

    def window(self, place: int, box: Box) -> Tensor:
        try:
            data = self.originals.read(place)
            pixels, size = decode_with_size(data, self.sizing.channels, self.sizing.decoded_at_least)
        except (OSError, BadImageError) as error:
            said = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else error
            raise BadImageError(
                f"{self.originals.ids[place]} {said}, but was whole before training; "
                "was it changed meanwhile? start again to have all images checked"
            ) from error
        top, left, height, width = box
        fitted = to_batch(fit(pixels, self.sizing, size))
        return fitted[:, :, top : top + height, left : left + width]


class FileImages:
    """Images of all shapes as uint8 batches of one shape; made by `open_images`.

    A bad image has its place but no pixels: leave it out with `select`.

    Args:
        pixels: Where fitted images come from.
        index: What is known of every image of `pixels`.
        sizing: What they were fitted to.
        threads: How many work on a batch.
        places: Which of the images, and in which order, int64 (N,); all where None.
    """

    def __init__(
        self,
        pixels: FittedPixels,
        index: ImageIndex,
        sizing: Sizing,
        threads: int,
        places: Tensor | None = None,
    ) -> None:
        self.sizing = sizing
        self.threads = threads
        self._pixels = pixels
        self._index = index
        self._fitted_sizes = index.fitted_sizes(sizing)
        self._places = torch.arange(len(index)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, S, S)."""
        return (len(self), self.sizing.channels, self.sizing.size, self.sizing.size)

    def select(self, places: Tensor) -> FileImages:
        """Returns the images at `places`, int64 (M,), or a mask (N,); shares pixels and index."""
        return FileImages(self._pixels, self._index, self.sizing, self.threads, self._places[places])

    def joined(self, other: FileImages) -> FileImages:
        """These and then those, of the same files."""
        assert other._index is self._index
        places = torch.cat([self._places, other._places])
        return FileImages(self._pixels, self._index, self.sizing, self.threads, places)

    def __getitem__(self, places: Tensor) -> Tensor:
        """What evaluation sees: uint8 (B, C, S, S), channels last in memory."""
        chosen = self._places[places]
        if self.sizing.resize == "squash" and isinstance(self._pixels, MappedPixels):
            return self._pixels.rows(chosen, self.sizing.size).permute(0, 3, 1, 2)
        sizes = self._fitted_sizes[chosen].tolist()
        return self._batch(chosen, [centre_box(height, width, self.sizing) for height, width in sizes])

    def random_resized_crops(
        self,
        places: Tensor,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        generator: torch.Generator,
    ) -> Tensor:
        """Another part of each image (see `draw_boxes`): uint8 (B, C, S, S), channels last in memory."""
        chosen = self._places[places]
        boxes = draw_boxes(self._fitted_sizes[chosen], scale, ratio, generator=generator)
        return self._batch(chosen, boxes.tolist())

    def _batch(self, places: Tensor, boxes: Sequence[Box]) -> Tensor:
        """A box of each image, resized to (S, S, C), gathered by several threads."""
        side, channels = self.sizing.size, self.sizing.channels
        batch = torch.empty((len(places), side, side, channels), dtype=torch.uint8).permute(0, 3, 1, 2)
        rows, numbers = torch.split(batch, 1), places.tolist()
        # A trial that shares the machine with others has fewer than those that opened the cache. One is left
        # to whoever works on the last batch: threads in each other's way took longer than without it.
        threads = min(self.threads, torch.get_num_threads())
        threads = threads if self.is_streamed else max(1, threads - 1)

        def fill(first: int) -> None:
            for sample in range(first, len(numbers), threads):
                window = self._pixels.window(numbers[sample], boxes[sample])
                rows[sample].copy_(resize(window, side, side, self.sizing.interpolation))

        # One alone is not the caller either, whose kernels share out each image and spin: for twice the time.
        list(pool(threads).map(fill, range(threads)))  # list: errors are raised
        return batch

    def original_sizes(self) -> Tensor:
        """Height and width before fitting, upright, int64 (N, 2)."""
        return self._index.original_sizes[self._places]

    def content_hashes(self) -> Sequence[str]:
        """For each image a hash of the bytes it came as: equal exactly where they are."""
        return [self._index.content_hashes[place] for place in self._places.tolist()]

    def notes(self) -> Sequence[str]:
        """For each image what is odd about it, such as PNG bytes in a .jpg; mostly empty."""
        return [self._index.notes[place] for place in self._places.tolist()]

    @property
    def is_streamed(self) -> bool:
        """Whether each batch is decoded anew."""
        return not isinstance(self._pixels, MappedPixels)
