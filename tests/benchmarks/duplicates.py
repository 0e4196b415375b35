"""Near duplicates planted across splits: how many are found, what else is, and how fast.

Copies of training images, re-encoded at JPEG quality 60 to 80, resized by 0.6 to 0.9 and back, or
brightened by 10 to 20 %, stand among the test images, several times over. The images are those of
flowers5_128 where DARKROOM_DATA has them. Plates that share their light and nothing else are no duplicates.

    python tests/benchmarks/duplicates.py [--rounds 10] [--images 4000]
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench import arguments, figure, seconds
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from darkroom.datamodules.inspection.duplicates import Pairs, find_duplicates
from darkroom.datamodules.inspection.image_statistics import measure

Picture = NDArray[np.uint8]  # (H, W, 3)


def main() -> None:
    given = arguments(
        __doc__, rounds=10, images=(4_000, 120), planted=(20, 6), plates=(1_000, 60), thumbnails=(60_000, 300)
    )
    train, test = load_pictures("train", given.images * 4 // 5), load_pictures("test", given.images // 5)
    already = find(np.concatenate([train, test]))
    leaks = int(((already.first < len(train)) & (already.second >= len(train))).sum())
    figure("duplicates/from_the_start", [leaks], "pairs", "found across the splits as they are", "1 pair")
    found, others = [], []
    for seed in range(given.rounds):
        hits, beside = plant_and_find(train, test, np.random.default_rng(seed), given.planted)
        found.append(hits / given.planted)
        others.append(beside - len(already))
    count = f"among {len(train) + len(test):,} images"
    figure("duplicates/found", found, "share", f"planted copies that are found {count}", "all")
    figure("duplicates/false", others, "pairs", f"pairs of neither {count}", "1 pair")
    alike = len(find(load_plates(given.plates)))
    figure(
        "duplicates/plates", [alike], "pairs", f"found among {given.plates:,} plates of one light", "1 pair"
    )
    noise = np.random.default_rng(0).integers(0, 256, (given.thumbnails, 32, 32), dtype=np.uint8)
    threads = f"on {torch.get_num_threads()} threads"
    for name, what, work in (
        ("images", f"{len(train):,} images measured and compared", lambda: find(train)),
        (
            "thumbnails",
            f"{given.thumbnails:,} thumbnails compared",
            lambda: find_duplicates(noise, [bytes(image[0]) for image in noise]),
        ),
    ):
        figure(f"duplicates/{name}", [seconds(work)], "s", f"{what} {threads}", "1 s")


def load_pictures(split: str, count: int) -> Picture:
    """Images of a split, (N, H, W, 3): of flowers5_128 where DARKROOM_DATA has it, else smoothed noise."""
    if root := os.environ.get("DARKROOM_DATA"):
        paths = sorted((Path(root) / "flowers5_128" / split).rglob("*.jpg"))
        chosen = paths[:: max(1, len(paths) // count)][:count]
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in chosen])
    random = np.random.default_rng(["train", "test"].index(split))
    coarse = random.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC)) for image in coarse]
    )


def load_plates(count: int) -> Picture:
    """A gradient and a fine texture for each, (N, 128, 128, 3)."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[0:1:128j, 0:1:128j].astype(np.float32)
    grain = random.normal(scale=6, size=(count, 128, 128)).astype(np.float32)
    grey = (60 + 100 * columns + 40 * rows + grain).round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def find(pictures: Picture) -> Pairs:
    """Duplicates among (N, H, W, 3)."""
    measures = measure(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    return find_duplicates(measures.thumbnails, measures.digests)


def plant_and_find(
    train: Picture, test: Picture, rng: np.random.Generator, planted_count: int
) -> tuple[int, int]:
    """How many copies of training images among the test images are found, and how many other pairs."""
    chosen = rng.choice(len(train), planted_count, replace=False)
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
