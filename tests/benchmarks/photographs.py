"""Photographs: decoding, random-resized crop, flip and normalise, against torchvision's usual way.

Both read the same JPEGs of 500x375; ours builds its cache in the first epoch, theirs is `ImageFolder`
with PIL in a `DataLoader` of two workers. Rounds alternate, so that both see the same machine.

    python tests/benchmarks/photographs.py FOLDER_OF_PHOTOGRAPHS [--images 2000] [--rounds 3]

Asked of it, on two cores: the first epoch at least 1.7 times as fast, later ones at least 6 times.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from datamodules.cache import FileOriginals, open_images
from datamodules.crops import mirror_
from datamodules.sizing import Sizing

BATCH_SIZE, SIDE, SCALE, RATIO = 64, 224, (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def generate(photographs: Path, folder: Path, count: int) -> None:
    """JPEGs of 500x375, quality 90, each another part of a real photograph."""
    kinds = {".jpg", ".jpeg", ".png"}
    sources = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in kinds)
    # Enlarged photographs hold less detail than real ones of that size, and would decode too fast.
    large = [path for path in sources if min(Image.open(path).size) >= 300] or sources
    random = np.random.default_rng(0)
    for number in range(count):
        image = Image.open(large[number % len(large)]).convert("RGB")
        image = ImageOps.fit(image, (500, 375), centering=(random.random(), random.random()))
        path = folder / f"class{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image if number % 4 < 2 else ImageOps.mirror(image)).save(path, quality=90)


def ours(folder: Path, cache: Path, threads: int, seed: int) -> int:
    """One epoch; builds the cache where there is none."""
    generator = torch.Generator().manual_seed(seed)
    sizing = Sizing(SIDE, "crop")
    originals = FileOriginals(sorted(folder.rglob("*.jpg")))
    images, bad = open_images(
        originals, sizing, folder=cache, budget_bytes=2**36, threads=threads, say=lambda sentence: None
    )
    assert not bad
    # Rows of W * C values: broadcasting over three channels that lie innermost is four times slower.
    std, mean = torch.tensor(STD).repeat(SIDE), torch.tensor(MEAN).repeat(SIDE)  # (S * C,)
    scale, shift = 1 / (255 * std), -mean / std
    normalised = torch.empty(BATCH_SIZE, SIDE, SIDE * 3)  # a new one each time would cost page faults
    seen = 0
    for places in torch.randperm(len(images), generator=generator).split(BATCH_SIZE):
        pixels = images.random_resized_crops(places, SCALE, RATIO, generator)
        mirror_(pixels, torch.rand(len(places), generator=generator) < 0.5)
        rows = pixels.permute(0, 2, 3, 1).reshape(len(places), SIDE, -1)
        for row, out in zip(rows, normalised, strict=False):
            torch.addcmul(shift, row.float(), scale, out=out)
        batch = normalised[: len(places)].view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2)
        seen += len(batch)
    return seen


def theirs(folder: Path, workers: int) -> int:
    per_sample = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE, SCALE, RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(ImageFolder(str(folder), per_sample), BATCH_SIZE, shuffle=True, num_workers=workers)
    return sum(len(images) for images, _ in loader)


def seconds(epoch: Callable[[], int], expected: int) -> float:
    started_at = time.perf_counter()
    assert epoch() == expected
    return time.perf_counter() - started_at


class PeakMemory(threading.Thread):
    """Largest resident memory of this process and those it started, seen each 20 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self._ended.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)

    def end(self) -> float:
        self._ended.set()
        self.join()
        return self.peak_bytes / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photographs", type=Path, help="folder with real photographs, in any depth")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    count: int = arguments.images
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch, "images"), Path(scratch, "cache")
        generate(arguments.photographs, folder, count)
        kib = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / count / 1024
        print(f"{count} photographs of 500x375, {kib:.0f} KiB each; {arguments.threads} threads and workers")
        theirs(folder, arguments.threads)  # the page cache has all files, and both sides all their code
        first, later = [], []
        memory = PeakMemory()
        before_mib = psutil.Process().memory_info().rss / 2**20
        memory.start()
        for round_number in range(arguments.rounds):
            shutil.rmtree(cache, ignore_errors=True)
            usual_s = seconds(lambda: theirs(folder, arguments.threads), count)
            first_s = seconds(lambda: ours(folder, cache, arguments.threads, 0), count)
            later_s = seconds(lambda: ours(folder, cache, arguments.threads, 1), count)
            first.append(usual_s / first_s)
            later.append(usual_s / later_s)
            print(
                f"round {round_number + 1}: torchvision {count / usual_s:,.0f} images/s; ours first epoch "
                f"{count / first_s:,.0f} ({first[-1]:.2f} times), later {count / later_s:,.0f} "
                f"({later[-1]:.2f} times)"
            )
        print(f"first epoch, cache included: {statistics.median(first):.2f} times (asked: 1.7)")
        print(f"later epochs: {statistics.median(later):.2f} times (asked: 6)")
        print(f"peak resident memory: {memory.end():,.0f} MiB, {before_mib:,.0f} before")


if __name__ == "__main__":
    main()
