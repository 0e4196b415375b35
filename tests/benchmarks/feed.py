"""The feed alone: batches of 28x28 images cropped, mirrored and normalised, as the network gets them.

Against torchvision's data set with per-sample transforms and a DataLoader with 0 and 2 workers, in one
run and with equal threads, on images of Fashion-MNIST's shape.

    python tests/benchmarks/feed.py [--images 20000] [--rounds 5]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytorch_lightning as pl
import torch
from bench import arguments, figure, interleaved, ratios, workplace, write_idx
from torch.utils.data import DataLoader
from training_loop import BATCH_SIZE, PerSample

from darkroom.datamodules import FashionMNIST
from darkroom.datamodules.augmentation.pipeline import Augmentation


def count_images(batches: Callable[[], Iterable[torch.Tensor]]) -> float:
    """Images a second over one pass."""
    started_at = time.perf_counter()
    images = sum(len(batch) for batch in batches())
    return images / (time.perf_counter() - started_at)


def main() -> None:
    given = arguments(__doc__, rounds=5, images=(20_000, 256))
    with workplace() as root:
        write_idx(root, given.images, test_images=100)
        augmentation = Augmentation(crop_padding=4, horizontal_flip=0.5)
        data = FashionMNIST(
            root=str(root), batch_size=BATCH_SIZE, val_fraction=0.0, augmentation=augmentation
        )
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
            feeds[f"{workers}_workers"] = lambda loader=loader: (images for images, _ in loader)
        for batches in feeds.values():  # starts workers, fills caches
            count_images(batches)
        rates = interleaved(
            given.rounds,
            {name: lambda batches=batches: count_images(batches) for name, batches in feeds.items()},
        )
    for workers in (0, 2):
        name, against = f"{workers}_workers", f"torchvision's data set and a DataLoader of {workers} workers"
        figure(f"feed/{name}", ratios(rates, "darkroom", name), "images/s", "Darkroom's feed", against)


if __name__ == "__main__":
    main()
