"""What is known of each image once it was decoded: sizes, place in the cache, hash, what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from datamodules.sizing import Sizing, fitted_sizes


@dataclass(frozen=True)
class ImageIndex:
    """One entry for each of N images, bad ones included.

    Attributes:
        original_sizes: Height and width as seen, in pixels, int64 (N, 2); 0 where bad.
        content_hashes: 32 hexadecimal digits, of the bytes as they came.
        reasons: Why the image cannot be used; empty where it can.
        notes: What is odd about a usable image; empty where nothing is.
    """

    original_sizes: Tensor
    content_hashes: list[str]
    reasons: list[str]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.content_hashes)

    def fitted_sizes(self, sizing: Sizing) -> Tensor:
        """Height and width that each is stored with, int64 (N, 2); 0 where bad."""
        return fitted_sizes(self.original_sizes, sizing) * (self.original_sizes > 0)

    def write(self, path: Path) -> None:
        sizes = self.original_sizes.numpy()
        columns = {
            "height": sizes[:, 0],
            "width": sizes[:, 1],
            "content_hash": pa.array(self.content_hashes, pa.string()),
            "reason": pa.array(self.reasons, pa.string()),
            "note": pa.array(self.notes, pa.string()),
        }
        pq.write_table(pa.table(columns), path)

    @classmethod
    def read(cls, path: Path) -> ImageIndex:
        table = pq.read_table(path)
        sizes = np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1)
        return cls(
            torch.from_numpy(sizes),
            table["content_hash"].to_pylist(),
            table["reason"].to_pylist(),
            table["note"].to_pylist(),
        )


def byte_offsets(fitted_sizes: Tensor, channels: int) -> Tensor:
    """Where each image starts in the file of pixels, and where the last ends: int64 (N + 1,).

    >>> byte_offsets(torch.tensor([[2, 3], [0, 0], [1, 1]]), 3).tolist()
    [0, 18, 18, 21]
    """
    return torch.nn.functional.pad((fitted_sizes.prod(1) * channels).cumsum(0), (1, 0))
