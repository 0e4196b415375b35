"""Images decoded once: folders of fitted pixels that later runs and all trials of a sweep memory-map."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from datamodules.cache_builder import INDEX, PIXELS, CacheBuilder
from datamodules.file_images import FileImages, MappedPixels, StreamedPixels
from datamodules.image_index import ImageIndex, byte_offsets
from datamodules.originals import FileOriginals, Originals
from datamodules.sizing import Sizing

__all__ = ["BadImage", "FileImages", "FileOriginals", "Originals", "open_images"]

FORMAT_VERSION = 1  # another one where the same images would give other pixels or another layout
SPARED_BYTES = 2**30  # of the disk, for checkpoints and logs


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used.

    Attributes:
        id: Of the image.
        reason: One clause, such as "is a truncated PNG".
    """

    id: str
    reason: str


def open_images(
    originals: Originals,
    sizing: Sizing,
    *,
    folder: Path,
    budget_bytes: int,
    threads: int,
    say: Callable[[str], None] = print,
) -> tuple[FileImages, list[BadImage]]:
    """Opens the cache of these images, after having built it where there is none or files changed.

    Every image is decoded once, so that bad ones are known before training. Where the pixels fit neither
    into the budget nor on the disk, images are verified all the same and then stream from their files;
    that they were verified is kept, too. One process builds while others wait for it.

    Args:
        originals: The images.
        sizing: What they are fitted to.
        folder: Of all caches; made where missing.
        budget_bytes: Most that this cache may take.
        threads: How many decode.
        say: Gets one sentence where something takes long or images stream.

    Returns:
        The images, bad ones included, and the list of bad ones, in order.

    Raises:
        ValueError: The folder can't be made.
    """
    # Named by ids and sizing, then by content: what has the first part in common is the same cache, stale.
    settings = repr(sorted(asdict(sizing).items()))
    family = _digest([str(FORMAT_VERSION), settings, originals.origin, *originals.ids])
    place = folder / f"{family}-{_digest(originals.stamps())}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"data.cache={folder} is no folder for caches ({error.strerror}); give one that can be written to"
        ) from error
    with _locked(folder / f"{family}.lock", say):
        index = _read_index(place, sizing)
        if index is None or _fits_by_now(place, index, sizing, budget_bytes):
            for stale in folder.glob(f"{family}-*"):
                shutil.rmtree(stale)
            index = CacheBuilder(
                originals,
                sizing,
                place,
                room_bytes=_room(folder, budget_bytes),
                known_bytes=None if index is None else _size(index, sizing),
                threads=threads,
                say=say,
            ).build()
        elif not (place / PIXELS).exists():
            say(f"The cache {place} has no room for pixels: images stream from their files")
        # Opened under the lock: once it is mapped, another process may remove the file but not the pixels.
        images = FileImages(_pixels(originals, sizing, place, index), index, sizing, threads)
    reasons = zip(originals.ids, index.reasons, strict=True)
    return images, [BadImage(image_id, reason) for image_id, reason in reasons if reason]


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Another process prepares these images ({path}): waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _digest(lines: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for line in lines:
        digest.update(f"{len(line)}:{line}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read_index(place: Path, sizing: Sizing) -> ImageIndex | None:
    """Of a whole cache, or of images that were verified and stream; else None."""
    try:
        index = ImageIndex.read(place / INDEX)
    except (OSError, pa.ArrowException, KeyError):
        return None
    pixels = place / PIXELS
    return None if pixels.exists() and pixels.stat().st_size != _size(index, sizing) else index


def _fits_by_now(place: Path, index: ImageIndex, sizing: Sizing, budget_bytes: int) -> bool:
    """Whether images that stream need not do so any longer."""
    return not (place / PIXELS).exists() and 0 < _size(index, sizing) <= _room(place.parent, budget_bytes)


def _room(folder: Path, budget_bytes: int) -> int:
    return min(budget_bytes, shutil.disk_usage(folder).free - SPARED_BYTES)


def _size(index: ImageIndex, sizing: Sizing) -> int:
    return int(byte_offsets(index.fitted_sizes(sizing), sizing.channels)[-1])


def _pixels(
    originals: Originals, sizing: Sizing, place: Path, index: ImageIndex
) -> MappedPixels | StreamedPixels:
    if (place / PIXELS).exists():
        return MappedPixels(place / PIXELS, index.fitted_sizes(sizing), sizing.channels)
    return StreamedPixels(originals, sizing)
