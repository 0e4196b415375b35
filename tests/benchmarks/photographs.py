"""Photographs to batches: a first epoch with the decoding of all files, and later ones, as images/s.

JPEGs of 500x375, random-resized crops to 224, mirrored, normalised; against torchvision's ImageFolder
with Pillow and a DataLoader of two workers, in one run. The pictures are made of real photographs in
--source (any folder of images), else of smoothed noise.

    python tests/benchmarks/photographs.py [--images 1000] [--rounds 3] [--source FOLDER]
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from datamodules import ImageFolder
from datamodules.augment import Augmentation
from experiments.startup import keep_memory

BATCH_SIZE = 64
SIZE = (500, 375)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_photographs(folder: Path, count: int, source: Path | None) -> None:
    """So many JPEGs of about 60 kB in two classes."""
    found = sorted(source.rglob("*.jp*g")) if source else []
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        if found:
            picture = ImageOps.fit(Image.open(found[number % len(found)]).convert("RGB"), SIZE)
        else:
            noise = random.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
        picture.save(path, quality=90)


def images_per_second(batches: Callable[[], Iterable[torch.Tensor]]) -> float:
    started_at = time.perf_counter()
    images = sum(len(batch) for batch in batches())
    return images / (time.perf_counter() - started_at)


def darkroom(root: Path, cache: Path) -> ImageFolder:
    """Ready to train, without what it has decoded."""
    data = ImageFolder(
        str(root),
        image_size=224,
        batch_size=BATCH_SIZE,
        val_fraction=0.0,
        test_fraction=0.0,
        normalization="imagenet",
        augmentation=Augmentation(resized_crop=(0.08, 1.0), horizontal_flip=0.5),
        cache=str(cache),
    )
    data.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    data.trainer.training = True
    return data


def usual(root: Path) -> DataLoader:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = datasets.ImageFolder(str(root), transform)
    return DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=2, persistent_workers=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", type=Path)
    arguments = parser.parse_args()
    first, later, theirs = [], [], []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "photographs"
        root.mkdir()
        write_photographs(root, arguments.images, arguments.source)
        size = sum(path.stat().st_size for path in root.rglob("*.jpg")) / arguments.images / 1000
        print(f"{arguments.images} JPEGs of {SIZE[0]}x{SIZE[1]}, {size:.0f} kB each, {os.cpu_count()} cores")
        loader = usual(root)
        images_per_second(lambda: (images for images, _ in loader))  # starts the workers, reads the files
        keep_memory()  # as every command does; the workers are as their users have them
        gc.freeze()  # likewise
        cache = Path(name) / "cache"
        for _ in range(arguments.rounds):
            data = darkroom(root, cache)

            def epoch(data: ImageFolder = data) -> Iterable[torch.Tensor]:
                data.setup()
                for batch in data.train_dataloader():
                    yield data.on_after_batch_transfer(batch, 0).images

            first.append(images_per_second(epoch))
            later.append(images_per_second(epoch))
            theirs.append(images_per_second(lambda: (images for images, _ in loader)))
            del data, epoch
            gc.collect()  # here, and not in the middle of the next round
            shutil.rmtree(cache)
    print(f"{'usual':<28} {statistics.median(theirs):>8,.0f} images/s")
    for label, rates in (("darkroom, first epoch", first), ("darkroom, later epochs", later)):
        ratios = sorted(ours / other for ours, other in zip(rates, theirs, strict=True))
        print(
            f"{label:<28} {statistics.median(rates):>8,.0f} images/s, "
            f"ratio {statistics.median(ratios):.1f} (from {ratios[0]:.1f} to {ratios[-1]:.1f})"
        )
    print(
        f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
