"""What exact numbers cost: photographs seen as timm sees them, gradients by images, sums in float64.

Of JPEGs the first epoch is timed, which decodes and resizes them into the cache; later epochs take the same
either way. Steps are of a network of next to nothing, by which the cost of weighing images shows most.

    python tests/benchmarks/exactness.py [--rounds 5] [--images 120]
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from bench import arguments, figure, interleaved, ratios, seconds, workplace, write_photographs
from torch.nn.functional import cross_entropy

from darkroom.datamodules import ImageFolder
from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.loader import Batch, BatchLoader
from darkroom.experiments.runtime.startup import keep_memory
from darkroom.lightning_modules import ImageClassifier

SIDE = 224
SIZES = {"large": (2000, 1500), "small": (500, 375)}
WAYS: dict[str, dict[str, Any]] = {
    "fast": {"decoding": "fast", "interpolation": "bilinear"},
    "exact_bilinear": {"decoding": "exact", "interpolation": "bilinear"},
    "exact_bicubic": {"decoding": "exact", "interpolation": "bicubic"},
}


def decode(root: Path, cache: Path, way: dict[str, Any]) -> float:
    """Seconds until all images lie in the cache."""
    data = ImageFolder(
        str(root), image_size=SIDE, val_fraction=0.0, test_fraction=0.0, normalization="imagenet",
        cache=str(cache), **way,
    )  # fmt: skip
    taken = seconds(data.setup)
    shutil.rmtree(cache)
    return taken


def compare_decoding(given: argparse.Namespace) -> None:
    with workplace() as folder:
        for size, (width, height) in SIZES.items():
            width, height = (width, height) if not given.tiny else (width // 4, height // 4)
            root = folder / size
            write_photographs(root, given.images, (width, height))
            decode(root, folder / "cache", WAYS["fast"])  # reads the files
            taken = interleaved(
                given.rounds,
                {name: partial(decode, root, folder / "cache", way) for name, way in WAYS.items()},
            )
            told = f"JPEGs of {width}x{height} to {SIDE}"
            figure(
                f"exactness/decoding_{size}", ratios(taken, "exact_bilinear", "fast"), "s",
                f"decoded whole, resized by Pillow, {told}", "decoding=fast",
            )  # fmt: skip
            figure(
                f"exactness/bicubic_{size}", ratios(taken, "exact_bicubic", "exact_bilinear"), "s",
                f"bicubic resizing, decoding included, {told}", "bilinear",
            )  # fmt: skip


class Noise(pl.LightningDataModule):
    """Random images of 8x8 in three classes of unequal number, in batches of eight."""

    def __init__(self, images: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (images, 1, 8, 8), generator=generator, dtype=torch.uint8)
        targets = torch.arange(images).square() % 7 % 3
        self.store = ImageStore(pixels, targets, [str(index) for index in range(images)])
        self.loader = BatchLoader(self.store, 8, shuffle=True)

    def train_dataloader(self) -> BatchLoader:
        return self.loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch._replace(images=batch.images.float() / 255)


class AsLightningAccumulates(ImageClassifier):
    """As it was: each batch's loss divided by the number of batches, whatever is in them."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        pass

    def on_train_start(self) -> None:
        super().on_train_start()
        self._accumulated = 1


def train(kind: type[ImageClassifier], images: int) -> float:
    """Seconds of an epoch with balanced classes, whose weights differ from batch to batch."""
    data = Noise(images)
    model = kind(backbone_options={"widths": [4]}, class_weights="balanced", optimizer="sgd")
    model.build(3, (1, 8, 8))
    model.weigh_classes(torch.bincount(data.store.targets).tolist())
    trainer = pl.Trainer(
        max_epochs=1, accumulate_grad_batches=4, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    return seconds(lambda: trainer.fit(model, data))


def compare_accumulation(given: argparse.Namespace) -> None:
    kinds = {"by_images": ImageClassifier, "by_batches": AsLightningAccumulates}
    train(ImageClassifier, 64)  # the first one imports
    taken = interleaved(
        given.rounds, {name: partial(train, kind, given.train_images) for name, kind in kinds.items()}
    )
    what = "an epoch of tiny steps of four batches, each image weighed"
    figure(
        "exactness/accumulation", ratios(taken, "by_images", "by_batches"), "s", what, "each batch weighed"
    )


def compare_sums(given: argparse.Namespace) -> None:
    """The mean cost of an epoch's predictions, as it is computed once at its end."""
    logits = torch.randn(given.predictions, 10, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(given.predictions) % 10
    taken = interleaved(
        given.rounds,
        {
            "float64": lambda: seconds(lambda: cross_entropy(logits.double(), targets)),
            "float32": lambda: seconds(lambda: cross_entropy(logits, targets)),
        },
    )
    what = f"mean cross-entropy of {given.predictions:,} predictions in float64"
    figure("exactness/float64", ratios(taken, "float64", "float32"), "s", what, "in float32")


def main() -> None:
    given = arguments(
        __doc__, rounds=5, images=(120, 6), train_images=(12_800, 96), predictions=(300_000, 1000)
    )
    compare_decoding(given)
    compare_accumulation(given)
    compare_sums(given)


if __name__ == "__main__":
    keep_memory()
    main()
