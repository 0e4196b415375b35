"""The feed alone: batches of 28x28 images cropped, mirrored and normalised, as the network gets them.

Against torchvision's data set with per-sample transforms and a DataLoader with 0 and 2 workers, in one
run and with equal threads, on images of Fashion-MNIST's shape.

    python tests/benchmarks/feed.py [--images 20000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from training_loop import BATCH_SIZE, PerSample, write_subset

from datamodules import FashionMNIST
from datamodules.augment import Augmentation


def count_images(batches: Callable[[], Iterable[torch.Tensor]]) -> float:
    """Images a second over one pass."""
    started_at = time.perf_counter()
    images = sum(len(batch) for batch in batches())
    return images / (time.perf_counter() - started_at)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_subset(Path(name), arguments.images)
        augmentation = Augmentation(crop_padding=4, horizontal_flip=0.5)
        data = FashionMNIST(root=name, batch_size=BATCH_SIZE, val_fraction=0.0, augmentation=augmentation)
        data.setup()
        data.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        data.trainer.training = True
        ours = data.train_dataloader()
        usual = PerSample(data, "train", train=True)
        feeds: dict[str, Callable[[], Iterable[torch.Tensor]]] = {
            "darkroom": lambda: (data.on_after_batch_transfer(batch, 0).images for batch in ours)
        }
        for workers in (0, 2):
            loader = DataLoader(
                usual, BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0
            )
            feeds[f"DataLoader, {workers} workers"] = lambda loader=loader: (images for images, _ in loader)
        rates: dict[str, list[float]] = {name: [] for name in feeds}
        for batches in feeds.values():  # starts workers, fills caches
            count_images(batches)
        for _ in range(arguments.rounds):
            for feed, batches in feeds.items():
                rates[feed].append(count_images(batches))
    medians = {feed: statistics.median(values) for feed, values in rates.items()}
    for feed, rate in medians.items():
        print(f"{feed:<24} {rate:>10,.0f} images/s")
    better = max(rate for feed, rate in medians.items() if feed != "darkroom")
    print(f"ratio to the better of the two: {medians['darkroom'] / better:.1f}")


if __name__ == "__main__":
    main()
