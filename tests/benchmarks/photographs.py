"""Photographs to batches: a first epoch with the decoding of all files, and later ones, as images/s.

JPEGs of 500x375, random-resized crops to 224, mirrored, normalised; against torchvision's ImageFolder
with Pillow and a DataLoader of two workers, in one run. The pictures are made of real photographs in
--source (any folder of images), else of smoothed noise.

    python tests/benchmarks/photographs.py [--images 1000] [--rounds 3] [--source FOLDER]
"""

from __future__ import annotations

import gc
import resource
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytorch_lightning as pl
import torch
from bench import arguments, figure, ratios, workplace, write_photographs
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from darkroom.datamodules import ImageFolder
from darkroom.datamodules.augmentation.pipeline import Augmentation
from darkroom.experiments.runtime.startup import keep_memory

BATCH_SIZE = 64
SIZE = (500, 375)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
    given = arguments(
        __doc__,
        rounds=3,
        images=(1000, 12),
        more=lambda parser: parser.add_argument("--source", type=Path),
    )
    first, later, theirs = [], [], []
    with workplace() as folder:
        root, cache = folder / "photographs", folder / "cache"
        write_photographs(root, given.images, SIZE, given.source)
        loader = usual(root)
        images_per_second(lambda: (images for images, _ in loader))  # starts the workers, reads the files
        keep_memory()  # as every command does; the workers are as their users have them
        gc.freeze()  # likewise
        for _ in range(given.rounds):
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
    against = "ImageFolder, Pillow and a DataLoader of two workers"
    for name, what, rates in (
        ("first_epoch", "Darkroom, first epoch", first),
        ("later_epochs", "Darkroom, later epochs", later),
    ):
        figure(f"photographs/{name}", ratios({"ours": rates, "usual": theirs}, "ours", "usual"),
               "images/s", f"{what}, {given.images} JPEGs of {SIZE[0]}x{SIZE[1]}", against)  # fmt: skip
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figure("photographs/memory", [memory], "GiB", "peak memory of the process", "1 GiB")


if __name__ == "__main__":
    main()
