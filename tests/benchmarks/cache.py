"""What the cache's checksums cost: the first reading of its pixels in a process, against later ones.

Pixels of 224x224 images lie in a file as the cache has them, in the system's memory; batches of 64
are read in random order. The first reading compares each block with its checksum.

    python tests/benchmarks/cache.py [--rounds 5] [--images 2000]
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from bench import arguments, figure, ratios, seconds

from darkroom.datamodules.images.file_images import MappedPixels
from darkroom.datamodules.images.index import BLOCK_BYTES

SIDE = 224


def main() -> None:
    given = arguments(__doc__, rounds=5, images=(2_000, 64))
    pixels = np.random.default_rng(0).integers(0, 256, given.images * SIDE * SIDE * 3, dtype=np.uint8)
    checksums = [
        zlib.crc32(pixels[start : start + BLOCK_BYTES]) for start in range(0, len(pixels), BLOCK_BYTES)
    ]
    sizes, ids = torch.full((given.images, 2), SIDE), [""] * given.images
    measured: dict[str, list[float]] = {"first": [], "later": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.bin"
        pixels.tofile(path)
        for _ in range(given.rounds):
            mapped = MappedPixels(path, sizes, 3, checksums, ids)
            for reading in measured.values():
                reading.append(seconds(lambda mapped=mapped: read_all(mapped, given.images)))  # type: ignore[misc]
    what = f"first reading of {len(pixels) / 1e6:,.0f} MB, with checksums"
    figure("cache/checksums", ratios(measured, "first", "later"), "s", what, "later readings")


def read_all(mapped: MappedPixels, images: int) -> None:
    for places in torch.split(torch.randperm(images), 64):
        mapped.rows(places, SIDE)


if __name__ == "__main__":
    main()
