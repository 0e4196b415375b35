"""Image files decoded once, into one file of uint8 that all processes map into memory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from datamodules.decoding import BadImageError, original_size
from datamodules.images import DecodedImages
from datamodules.sizing import Sizing, fitted

FORMAT = 1  # of the files below; another one makes caches anew
PIXELS, INDEX = "pixels.bin", "index.parquet"
SAMPLED = 256  # images whose headers tell how large a cache will be
WINDOW = 8  # images for each thread that may wait to be written
WORTH_TELLING = 1000  # images whose decoding takes so long that a user should know of it


class Originals(Protocol):
    """Where encoded images come from."""

    @property
    def ids(self) -> Sequence[str]:
        """N names."""

    def stamps(self) -> Sequence[str]:
        """N texts that change whenever the content may have, at little cost."""

    def read(self, place: int) -> bytes | Image.Image:
        """The content of one, or what Pillow makes of it."""


@dataclass(frozen=True)
class FileOriginals:
    """Images in files of their own."""

    paths: Sequence[Path]
    ids: Sequence[str]

    def stamps(self) -> list[str]:
        states = [path.stat() for path in self.paths]
        names = [str(path.resolve()) for path in self.paths]
        return [
            f"{name}\0{state.st_size}\0{state.st_mtime_ns}" for name, state in zip(names, states, strict=True)
        ]

    def read(self, place: int) -> bytes:
        return self.paths[place].read_bytes()


@dataclass(frozen=True)
class BadImage:
    """A file that can't be read as a whole image, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Decoded:
    """One image of an index: its pixels until they are written, and what is kept of it."""

    pixels: NDArray[np.uint8] | None
    original_size: tuple[int, int]
    content: str
    reason: str


def open_images(
    originals: Originals,
    sizing: Sizing,
    *,
    folder: Path,
    budget_bytes: int,
    threads: int,
    say: Callable[[str], None] = print,
) -> tuple[DecodedImages, list[BadImage]]:
    """All images at one size, decoded now or by whichever process came first, and those that can't be.

    What is larger than the budget, or than the disk has room for, is verified now and decoded each time
    it is asked for.

    Args:
        originals: The encoded images.
        sizing: What becomes of their shapes.
        folder: Where caches lie.
        budget_bytes: What this one may take.
        threads: How many decode at once.
        say: Told what takes long, and what is not cached.
    """
    series = _hash([str(FORMAT), repr(sizing), *originals.ids])
    key = _hash([series, *originals.stamps()])
    place = folder / f"{series}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{series}.lock"):
        index = _read_index(place)
        if index is None or (not _is_cached(index) and _fits(originals, sizing, folder, budget_bytes)):
            _remove(folder.glob(f"{series}-*"))  # of files that have changed since, or half made
            index = _build(originals, sizing, place, budget_bytes, threads, say)
    pixels = place / PIXELS if _is_cached(index) else None
    images = DecodedImages.of(index, sizing, pixels, originals.read)
    bad = [BadImage(name, why) for name, why in zip(originals.ids, index["reason"], strict=True) if why]
    return images, bad


def _build(
    originals: Originals, sizing: Sizing, place: Path, budget: int, threads: int, say: Callable[[str], None]
) -> pd.DataFrame:
    """Decodes everything; the index is written last, and makes the cache whole."""
    count = len(originals.ids)
    cached = _fits(originals, sizing, place.parent, budget)
    if not cached:
        say(
            f"{count:,} images are more than data.cache_gib or the disk of {place.parent} allows for: they "
            "are verified now, and read from their files each epoch"
        )
    elif count >= WORTH_TELLING:
        say(f"decoding {count:,} images once, into {place.parent}")
    partial = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        index = _decode_all(originals, sizing, partial / PIXELS if cached else None, threads)
    except OSError as error:
        _remove([partial])
        if cached and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return _build(originals, sizing, place, 0, threads, say)
        raise
    except BaseException:
        _remove([partial])
        raise
    index.to_parquet(partial / INDEX)
    partial.replace(place)
    return index


def _decode_all(originals: Originals, sizing: Sizing, path: Path | None, threads: int) -> pd.DataFrame:
    """One row for each image; their pixels one after another in the file at `path`."""
    rows = []
    offset = 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("wb")) if path is not None else None
        for each in _in_threads(lambda place: _decode(originals, place, sizing), len(originals.ids), threads):
            height, width = (0, 0) if each.pixels is None else each.pixels.shape[:2]
            at = -1
            if each.pixels is not None and file is not None:
                at = offset
                offset += file.write(each.pixels.data)
            rows.append((at, height, width, *each.original_size, each.content, each.reason))
        if file is not None:
            file.flush()
            os.fsync(file.fileno())
    columns = ["offset", "height", "width", "original_height", "original_width", "content", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _decode(originals: Originals, place: int, sizing: Sizing) -> Decoded:
    data: bytes | Image.Image = b""
    try:
        data = originals.read(place)
        pixels = fitted(data, sizing)
        return Decoded(pixels, original_size(data), _content(data), "")
    except BadImageError as error:
        return Decoded(None, (0, 0), _content(data), str(error))
    except OSError as error:
        return Decoded(None, (0, 0), "", f"can't be opened: {error.strerror or error}")


def _in_threads(work: Callable[[int], Decoded], count: int, threads: int) -> Iterator[Decoded]:
    """The results of `work` for 0 ... count - 1, in order, with no more of them waiting than needed."""
    # Each thread is one of several already: none may start a team of its own.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Decoded]] = deque()
        try:
            for place in range(count):
                waiting.append(pool.submit(work, place))
                if len(waiting) >= WINDOW * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fits(originals: Originals, sizing: Sizing, folder: Path, budget: int) -> bool:
    """Whether the cache would keep to its budget, and leave the disk a tenth of its free space."""
    count = len(originals.ids)
    sizes = []
    for place in np.linspace(0, count - 1, min(count, SAMPLED)).astype(int).tolist():
        with contextlib.suppress(BadImageError, OSError):
            height, width = sizing.shape_of(*original_size(originals.read(place)))
            sizes.append(height * width * sizing.channels)
    expected = count * float(np.mean(sizes)) if sizes else 0.0
    return expected <= min(budget, 0.9 * shutil.disk_usage(folder).free)


def _read_index(place: Path) -> pd.DataFrame | None:
    """The index of a whole cache; None where there is none."""
    if not (place / INDEX).is_file():
        return None
    index = pd.read_parquet(place / INDEX)
    good = index["offset"] >= 0
    size = int((index["height"] * index["width"])[good].sum())
    if good.any() and (place / PIXELS).stat().st_size % max(size, 1):
        return None
    return index


def _is_cached(index: pd.DataFrame) -> bool:
    """Whether the pixels were written: of each image that could be decoded."""
    return bool((index["offset"] >= 0).eq(index["reason"] == "").all())


def _remove(folders: Iterator[Path] | Sequence[Path]) -> None:
    for folder in folders:
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _content(data: bytes | Image.Image) -> str:
    content = data if isinstance(data, bytes) else data.tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _hash(texts: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
