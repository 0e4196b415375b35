"""Builds a cache: decodes every image once, and writes fitted pixels while they fit."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..threads import pool
from .decoding import MAX_PIXELS, BadImageError, decode_with_size, format_of
from .index import BLOCK_BYTES, ImageIndex
from .readers import Originals
from .resizing import Sizing, fit, fitted_size

PIXELS, INDEX = "pixels.bin", "index.parquet"
IMAGES_PER_TASK = 8
IMAGES_TO_ESTIMATE = 256
SYNC_BYTES = 8 * 2**20
_EXTENSIONS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".gif": "GIF",
    ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP",
    ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM",
}  # fmt: skip


@dataclass(frozen=True)
class _Examined:
    """One image, decoded once."""

    content_hash: str
    fitted: NDArray[np.uint8] | None = None
    size: tuple[int, int] = (0, 0)
    reason: str = ""
    note: str = ""


class CacheBuilder:
    """One build; nobody else may build in the same place meanwhile.

    Args:
        originals: The images.
        sizing: What they are fitted to.
        place: The folder to make.
        room_bytes: Most that the pixels may take.
        known_bytes: What they will take, where it is known; otherwise it is estimated.
        stamps: Of the images, taken before any is read.
        threads: How many decode.
        say: Gets one sentence where something takes long or the pixels do not fit.
    """

    def __init__(
        self,
        originals: Originals,
        sizing: Sizing,
        place: Path,
        *,
        room_bytes: int,
        known_bytes: int | None,
        stamps: Sequence[str],
        threads: int,
        say: Callable[[str], None],
    ) -> None:
        self.originals = originals
        self.sizing = sizing
        self.place = place
        self.room_bytes = room_bytes
        self.known_bytes = known_bytes
        self.stamps = list(stamps)
        self.threads = threads
        self.say = say
        self._keeps_pixels = True

    def build(self) -> ImageIndex:
        """Writes beside the place and moves there once all is on the disk: what is in place is whole."""
        part = self.place.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            index = self._write_pixels(part / PIXELS)
            try:
                index.write(part / INDEX)
                part.rename(self.place)
                _to_disk(self.place.parent)
            except OSError as error:
                if not _is_full(error) or self._keeps_pixels:
                    raise
                self.say("The disk is full: images will be verified anew the next time")
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return index

    def _write_pixels(self, path: Path) -> ImageIndex:
        count = len(self.originals.ids)
        self.say(f"Decoding {count:,} images once, for {self.place}")
        sizes, hashes, reasons, notes = [], [], [], []
        written, estimated = 0, self.known_bytes
        if self.sizing.resize == "squash":
            estimated = count * self.sizing.size**2 * self.sizing.channels
        with _WrittenAhead(path) as file:
            self._check_room(file, estimated or 0)
            for number, examined in enumerate(self._examine_all(), start=1):
                sizes.append(examined.size)
                hashes.append(examined.content_hash)
                reasons.append(examined.reason)
                notes.append(examined.note)
                if self._keeps_pixels and examined.fitted is not None:
                    written += examined.fitted.size
                    self._check_room(file, written)
                    self._append(file, examined.fitted)
                if estimated is None and number == IMAGES_TO_ESTIMATE:
                    self._check_room(file, written * count // number)
            self._finish(file)
        if not self._keeps_pixels or written == 0:
            path.unlink()
        original_sizes = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)
        return ImageIndex(original_sizes, hashes, reasons, notes, self.stamps, file.checksums)

    def _check_room(self, file: _WrittenAhead, needed: int) -> None:
        if self._keeps_pixels and needed > self.room_bytes:
            needs, has = needed / 2**20, max(self.room_bytes, 0) / 2**20
            self._keep_no_pixels(file, f"needs at least {needs:,.0f} MiB of {has:,.0f} MiB allowed and free")

    def _append(self, file: _WrittenAhead, fitted: NDArray[np.uint8]) -> None:
        if not self._keeps_pixels:
            return
        try:
            file.append(fitted)
        except OSError as error:
            if not _is_full(error):
                raise
            self._keep_no_pixels(file, "ran out of disk space")

    def _finish(self, file: _WrittenAhead) -> None:
        try:
            file.to_disk()
        except OSError as error:  # some file systems notice only now
            if not _is_full(error):
                raise
            self._keep_no_pixels(file, "ran out of disk space")

    def _keep_no_pixels(self, file: _WrittenAhead, why: str) -> None:
        self._keeps_pixels = False
        file.clear()
        self.say(f"The cache {self.place} {why}: images are verified once and stream from their files")

    def _examine_all(self) -> Iterator[_Examined]:
        """In order; few are ahead of what is taken, so that memory stays bounded."""
        executor = pool(self.threads)
        ahead: deque[Future[list[_Examined]]] = deque()
        try:
            for first in range(0, len(self.originals.ids), IMAGES_PER_TASK):
                ahead.append(executor.submit(self._examine_some, first))
                if len(ahead) > 3 * self.threads:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _examine_some(self, first: int) -> list[_Examined]:
        last = min(first + IMAGES_PER_TASK, len(self.originals.ids))
        return [self._examine(place) for place in range(first, last)]

    def _examine(self, place: int) -> _Examined:
        try:
            data = self.originals.read(place)
        except OSError as error:
            return _Examined("", reason=f"cannot be read ({error.strerror or error})")
        content_hash = hash_content(data)
        try:
            pixels, size = decode_with_size(data, self.sizing.channels, self.sizing.decoded_at_least)
        except BadImageError as error:
            return _Examined(content_hash, reason=str(error))
        height, width = fitted_size(*size, self.sizing)
        if height * width > MAX_PIXELS:
            return _Examined(
                content_hash, reason=f"is too elongated: {size[0]}x{size[1]} would be {height}x{width}"
            )
        fitted = fit(pixels, self.sizing, size) if self._keeps_pixels else None
        return _Examined(content_hash, fitted, size, note=_note(self.originals.ids[place], data))


class _WrittenAhead:
    """A file that goes to the disk while more is decoded: waiting at the end took a tenth of the time.

    Attributes:
        checksums: CRC-32 of each block of `BLOCK_BYTES`, the last of which may be shorter.
    """

    def __init__(self, path: Path) -> None:
        self._file = FileIO(path, "w")
        self._syncing = ThreadPoolExecutor(1, "sync")
        self._synced: list[Future[None]] = []
        self._unsynced_bytes = 0
        self._written_bytes = 0
        self.checksums: list[int] = []

    def __enter__(self) -> _WrittenAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._syncing.shutdown()
        self._file.close()

    def append(self, fitted: NDArray[np.uint8]) -> None:
        left = np.ascontiguousarray(fitted).reshape(-1).data
        self._add_to_checksums(left)
        while len(left):
            left = left[self._file.write(left) :]
        self._unsynced_bytes += fitted.size
        if self._unsynced_bytes >= SYNC_BYTES:
            self._sync()

    def _add_to_checksums(self, left: memoryview) -> None:
        while len(left):
            filled = self._written_bytes % BLOCK_BYTES
            if not filled:
                self.checksums.append(0)
            added = left[: BLOCK_BYTES - filled]
            self.checksums[-1] = zlib.crc32(added, self.checksums[-1])
            self._written_bytes += len(added)
            left = left[len(added) :]

    def clear(self) -> None:
        self._file.truncate(0)
        self.checksums, self._written_bytes = [], 0

    def to_disk(self) -> None:
        self._sync()
        for synced in self._synced:
            synced.result()  # the system tells of an error once only, whoever asks first

    def _sync(self) -> None:
        self._unsynced_bytes = 0
        self._synced.append(self._syncing.submit(os.fsync, self._file.fileno()))


def _note(image_id: str, data: bytes | Image.Image) -> str:
    if isinstance(data, Image.Image):
        return ""
    suffix = "".join(image_id.rpartition(".")[1:])  # Path interns its parts: 40 us each where much is
    expected, found = _EXTENSIONS.get(suffix.lower()), format_of(data)
    return f"is named {suffix} but holds {found}" if expected not in (None, found) else ""


def hash_content(data: bytes | Image.Image) -> str:
    """32 hexadecimal digits, of the bytes or pixels as they came."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(data, Image.Image):
        digest.update(f"{data.mode} {data.size}".encode())
        data = data.tobytes()
    digest.update(data)
    return digest.hexdigest()


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
