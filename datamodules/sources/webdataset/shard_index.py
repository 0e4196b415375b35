"""What a tar shard holds and where: its images, so that each can be read by itself, and their labels."""

from __future__ import annotations

import importlib
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...messages import some
from ..file_names import IMAGE_SUFFIXES, refuse_undecodable


@dataclass(frozen=True)
class ShardIndex:
    """The images of one shard, in its order.

    Attributes:
        names: Of the tar's members that are images.
        offsets: Where the bytes of each begin in the tar, int64 (N,).
        sizes: How many bytes those are, int64 (N,).
        labels: What stands in the member beside each that has its label.
    """

    names: Sequence[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: Sequence[str]

    def write(self, path: Path) -> None:
        """Under another name first: what is in place is whole."""
        columns = {"name": self.names, "offset": self.offsets, "size": self.sizes, "label": self.labels}
        part = path.with_suffix(f".{os.getpid()}.part")
        pq.write_table(pa.table(columns), part)
        part.rename(path)

    @classmethod
    def read(cls, path: Path) -> ShardIndex:
        table = pq.read_table(path)
        return cls(
            table["name"].to_pylist(),
            table["offset"].to_numpy(),
            table["size"].to_numpy(),
            table["label"].to_pylist(),
        )


def index_shard(file: IO[bytes], shard: str, label_extension: str) -> ShardIndex:
    """Reads a shard's headers and labels, and no image.

    Members whose names differ in what follows the first dot are one sample, as WebDataset has it.

    Args:
        file: The tar, open for reading at any place.
        shard: Its name, for messages.
        label_extension: Of the members that hold labels, such as "cls".

    Raises:
        ValueError: It is no tar, is cut short, or a sample has not one image and one label, or
            a name that is not UTF-8.
    """
    split_name = importlib.import_module("webdataset.tariterators").base_plus_ext
    images: dict[str, list[tarfile.TarInfo]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                key, extension = split_name(member.name)
                if not member.isreg() or key is None or re.match(r"__[^/]*__($|/)", member.name):
                    continue  # such as a folder, or what writers say about themselves
                found = images.setdefault(key, [])
                if f".{extension.lower()}" in IMAGE_SUFFIXES:
                    found.append(member)
                elif extension.lower() == label_extension:
                    text = archive.extractfile(member)
                    assert text is not None  # of a regular member
                    labels[key] = text.read().decode().strip()
            # tarfile takes a damaged header for the end, and a file that ends between two members for whole.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise ValueError(f"shard {shard} is cut short or damaged: fetch or write it again")
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise ValueError(
            f"shard {shard} can't be read as a tar ({error}): compressed or damaged ones are not read"
        ) from error
    _refuse(shard, [key for key in images if not images[key]], "no image")
    _refuse(shard, [key for key in images if len(images[key]) > 1], "several images")
    _refuse(shard, [key for key in images if not labels.get(key)], f"no label (.{label_extension})")
    members = [member for (member,) in images.values()]
    refuse_undecodable([f"{shard}/{member.name}" for member in members])
    return ShardIndex(
        names=[member.name for member in members],
        offsets=np.array([member.offset_data for member in members], dtype=np.int64),
        sizes=np.array([member.size for member in members], dtype=np.int64),
        labels=[labels[key] for key in images],
    )


def kept_index(path: Path, make: Callable[[], ShardIndex]) -> ShardIndex:
    """The index at a path; made, and kept there, where there is none that can be read."""
    try:
        return ShardIndex.read(path)
    except (OSError, pa.ArrowException, KeyError):
        index = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        index.write(path)
        return index


def _refuse(shard: str, keys: Sequence[str], problem: str) -> None:
    if keys:
        raise ValueError(
            f"shard {shard} has {problem} for {some(keys)}: expected one image and "
            "one label in each sample; data.label_extension names what labels end in"
        )
