"""Images decoded once: folders of fitted pixels that later runs and all trials of a sweep memory-map."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from ..threads import pool
from .cache_builder import INDEX, PIXELS, CacheBuilder, hash_content
from .file_images import FileImages, MappedPixels, StreamedPixels
from .index import BLOCK_BYTES, ImageIndex, byte_offsets
from .readers import Originals
from .resizing import Sizing

FORMAT_VERSION = 2  # another one where the same images would give other pixels or another layout
SPARED_BYTES = 2**30  # of the disk, for checkpoints and logs
HASHED_PER_TASK = 8  # images


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

    Files that may have changed since, by their stamps, are read and hashed: those that hold what they held
    (a copied data set, another inode) are not decoded anew.

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
    # All caches of the same ids and sizing begin alike: there is one of them, which may be stale.
    settings = repr(sorted(asdict(sizing).items()))
    family = _digest([str(FORMAT_VERSION), settings, originals.origin, *originals.ids])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"data.cache={folder} is no folder for caches ({error.strerror}); give one that can be written to"
        ) from error
    with _locked(folder / f"{family}.lock", say):
        stamps = originals.stamps()
        place, index = _find(folder, family, sizing)
        if index is not None:
            index = _recognised(index, place, originals, stamps, threads, say)
        if index is None or _fits_by_now(place, index, sizing, budget_bytes):
            for stale in folder.glob(f"{family}-*"):
                shutil.rmtree(stale)
            # Another name than the stale one's: processes that unpickle its images must not map these.
            place = folder / f"{family}-{_digest(stamps)}"
            index = CacheBuilder(
                originals,
                sizing,
                place,
                room_bytes=_room(folder, budget_bytes),
                known_bytes=None if index is None else _size(index, sizing),
                stamps=stamps,
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


def _find(folder: Path, family: str, sizing: Sizing) -> tuple[Path, ImageIndex | None]:
    """The cache of these images, and its index where it is whole."""
    for place in folder.glob(f"{family}-*"):
        if place.suffix != ".part" and (index := _read_index(place, sizing)) is not None:
            return place, index
    return folder / family, None


def _read_index(place: Path, sizing: Sizing) -> ImageIndex | None:
    """Returns the index of a whole cache, or of images that were verified and stream; else None."""
    try:
        index = ImageIndex.read(place / INDEX)
    except (OSError, pa.ArrowException, KeyError):
        return None
    pixels = place / PIXELS
    if not pixels.exists():
        return index
    size = _size(index, sizing)
    is_whole = pixels.stat().st_size == size and len(index.checksums) == -(-size // BLOCK_BYTES)
    return index if is_whole else None


def _recognised(
    index: ImageIndex,
    place: Path,
    originals: Originals,
    stamps: Sequence[str],
    threads: int,
    say: Callable[[str], None],
) -> ImageIndex | None:
    """The index with the images' present stamps, where each image still holds what was decoded; else None."""
    rows = enumerate(zip(index.stamps, stamps, strict=True))
    touched = [image for image, (before, now) in rows if before != now]
    if not touched:
        return index
    say(f"Reading {len(touched):,} images again that may have changed since they were decoded, for {place}")

    def hold_the_same(first: int) -> bool:
        chosen = touched[first : first + HASHED_PER_TASK]
        return all(_present_hash(originals, image) == index.content_hashes[image] for image in chosen)

    if not all(pool(threads).map(hold_the_same, range(0, len(touched), HASHED_PER_TASK))):
        return None
    index = replace(index, stamps=list(stamps))
    written = place / f"{INDEX}.part"
    with suppress(OSError):  # without room for it the images are read again the next time
        index.write(written)
        written.replace(place / INDEX)
    return index


def _present_hash(originals: Originals, image: int) -> str:
    try:
        return hash_content(originals.read(image))
    except OSError:
        return ""  # as the index has it of an image that could not be read


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
        sizes = index.fitted_sizes(sizing)
        return MappedPixels(place / PIXELS, sizes, sizing.channels, index.checksums, originals.ids)
    return StreamedPixels(originals, sizing)
