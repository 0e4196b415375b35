"""Near duplicates planted across the splits of flowers5_128: how many are found, what else is, how fast.

Twenty copies of training images, re-encoded at JPEG quality 60 to 80, resized by 0.6 to 0.9 and back,
or brightened by 10 to 20 %, stand among the test images, several times over.

    DARKROOM_DATA=... python tests/benchmarks/duplicates.py [--rounds 10]
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from datamodules.duplicates import Pairs, find_duplicates
from datamodules.measures import measure

Picture = NDArray[np.uint8]  # (H, W, 3)
NUM_PLANTED = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    train, test = (load_pictures(split) for split in ("train", "test"))
    already = find(np.concatenate([train, test]))
    leaks = int(((already.first < len(train)) & (already.second >= len(train))).sum())
    print(
        f"{len(train):,} + {len(test):,} images; {len(already)} pairs from the start, {leaks} across splits"
    )
    found, others = 0, 0
    for seed in range(arguments.rounds):
        hits, beside = plant_and_find(train, test, np.random.default_rng(seed))
        found, others = found + hits, others + beside - len(already)
        print(f"round {seed}: found {hits} of {NUM_PLANTED}, and {beside - len(already)} pairs of neither")
    print(f"found {found} of {arguments.rounds * NUM_PLANTED} planted; {others} false pairs")
    five_thousand = np.concatenate([train, test, train])[:5000]
    five_thousand[len(train) + len(test) :, ::2, ::2] ^= 1  # not equal, which would be quicker
    started_at = time.perf_counter()
    find(five_thousand)
    print(f"5,000 images on {torch.get_num_threads()} threads: {time.perf_counter() - started_at:.1f} s")
    noise = np.random.default_rng(0).integers(0, 256, (60_000, 32, 32), dtype=np.uint8)
    started_at = time.perf_counter()
    find_duplicates(noise, [bytes(image[0]) for image in noise])
    print(f"60,000 thumbnails compared: {time.perf_counter() - started_at:.1f} s")


def load_pictures(split: str, count: int | None = None) -> Picture:
    """The images of a split, (N, H, W, 3)."""
    folder = Path(os.environ["DARKROOM_DATA"]) / "flowers5_128" / split
    paths = sorted(folder.rglob("*.jpg"))
    chosen = paths if count is None else paths[:: max(1, len(paths) // count)][:count]
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in chosen])


def find(pictures: Picture) -> Pairs:
    """Duplicates among (N, H, W, 3)."""
    measures = measure(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    return find_duplicates(measures.thumbnails, measures.digests)


def plant_and_find(train: Picture, test: Picture, rng: np.random.Generator) -> tuple[int, int]:
    """How many copies of training images among the test images are found, and how many other pairs."""
    chosen = rng.choice(len(train), NUM_PLANTED, replace=False)
    copies = np.stack([CHANGES[turn % 3](train[place], rng) for turn, place in enumerate(chosen)])
    pairs = find(np.concatenate([train, test, copies]))
    start = len(train) + len(test)
    planted = {(int(place), start + turn) for turn, place in enumerate(chosen)}
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    return len(found & planted), len(found - planted)


def encode_again(picture: Picture, rng: np.random.Generator) -> Picture:
    """At JPEG quality 60 to 80."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=int(rng.integers(60, 81)))
    return np.asarray(Image.open(buffer))


def resize(picture: Picture, rng: np.random.Generator) -> Picture:
    """By 0.6 to 0.9, and back."""
    image = Image.fromarray(picture)
    factor = rng.uniform(0.6, 0.9)
    small = image.resize((round(image.width * factor), round(image.height * factor)))
    return np.asarray(small.resize(image.size))


def brighten(picture: Picture, rng: np.random.Generator) -> Picture:
    """By 10 to 20 %."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(rng.uniform(1.1, 1.2)))


CHANGES: tuple[Callable[[Picture, np.random.Generator], Picture], ...] = (encode_again, resize, brighten)

if __name__ == "__main__":
    main()
