"""Per-image metadata of a cache."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from .resizing import Sizing, fitted_sizes

BLOCK_BYTES = 2**20  # of pixels to a checksum: a page fault reads about as much ahead from a disk
_CHECKSUMS = b"checksums"


@dataclass(frozen=True)
class ImageIndex:
    """One entry for each of N images, bad ones included.

    Attributes:
        original_sizes: Height and width as seen, in pixels, int64 (N, 2); 0 where bad.
        content_hashes: 32 hexadecimal digits, of the bytes as they came.
        reasons: Why the image cannot be used; empty where it can.
        notes: What is odd about a usable image; empty where nothing is.
        stamps: What told each image's state before it was last read (see `Originals.stamps`).
        checksums: Of each block of the cache's pixels (see `BLOCK_BYTES`); none where images stream.
    """

    original_sizes: Tensor
    content_hashes: list[str]
    reasons: list[str]
    notes: list[str]
    stamps: list[str]
    checksums: list[int]

    def __len__(self) -> int:
        return len(self.content_hashes)

    def fitted_sizes(self, sizing: Sizing) -> Tensor:
        """Height and width that each is stored with, int64 (N, 2); 0 where bad."""
        return fitted_sizes(self.original_sizes, sizing) * (self.original_sizes > 0)

    def write(self, path: Path) -> None:
        """Writes what `read` gives back, to the disk."""
        sizes = self.original_sizes.numpy()
        columns = {
            "height": sizes[:, 0],
            "width": sizes[:, 1],
            "content_hash": pa.array(self.content_hashes, pa.string()),
            "reason": pa.array(self.reasons, pa.string()),
            "note": pa.array(self.notes, pa.string()),
            "stamp": pa.array([os.fsencode(stamp) for stamp in self.stamps], pa.binary()),
        }
        table = pa.table(columns).replace_schema_metadata({_CHECKSUMS: json.dumps(self.checksums)})
        with path.open("wb") as file:
            pq.write_table(table, file, write_page_checksum=True)
            os.fsync(file.fileno())

    @classmethod
    def read(cls, path: Path) -> ImageIndex:
        """What `write` wrote.

        Raises:
            OSError, pa.ArrowException: It is damaged or not there.
            KeyError: It is of an older format.
        """
        table = pq.read_table(path, page_checksum_verification=True)
        sizes = np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1)
        return cls(
            torch.from_numpy(sizes),
            table["content_hash"].to_pylist(),
            table["reason"].to_pylist(),
            table["note"].to_pylist(),
            [os.fsdecode(stamp) for stamp in table["stamp"].to_pylist()],
            json.loads((table.schema.metadata or {})[_CHECKSUMS]),
        )


def byte_offsets(fitted_sizes: Tensor, channels: int) -> Tensor:
    """Where each image starts in the file of pixels, and where the last ends: int64 (N + 1,).

    >>> byte_offsets(torch.tensor([[2, 3], [0, 0], [1, 1]]), 3).tolist()
    [0, 18, 18, 21]
    """
    return torch.nn.functional.pad((fitted_sizes.prod(1) * channels).cumsum(0), (1, 0))
