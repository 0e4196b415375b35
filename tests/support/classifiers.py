"""Small classifiers and trainers for unit tests."""

from __future__ import annotations

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from darkroom.datamodules import ImageDataModule, Synthetic
from darkroom.datamodules.images.store import ImageStore, without_pixels
from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.optimization.finetuning import FineTuning

IMAGE_SHAPE = (1, 8, 8)


class Bars(ImageDataModule):
    """Noise with a bright bar, whose place is the class: easy to learn, not trivial to be sure of."""

    source_shape = IMAGE_SHAPE

    def __init__(self, num_classes: int = 3, **arguments: Any) -> None:
        super().__init__(**{"batch_size": 32, "val_fraction": 0.25, **arguments})
        self.class_names = tuple(f"bar {label}" for label in range(num_classes))

    def load(self) -> dict[str, ImageStore]:
        return {"train": self._make(160, "train", 0), "test": self._make(60, "test", 1)}

    def listed(self) -> dict[str, ImageStore]:
        return {"train": without_pixels([f"train/{index}" for index in range(160)])}

    def _make(self, count: int, name: str, seed: int) -> ImageStore:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(120, (count, *IMAGE_SHAPE), generator=generator, dtype=torch.uint8)
        targets = torch.randint(len(self.class_names), (count,), generator=generator)
        for image, target in zip(images, targets.tolist(), strict=True):
            image[0, 2 * target + 1] += 80
        return ImageStore(images, targets, [f"{name}/{index}" for index in range(count)])


def prepared(num_classes: int = 3, **arguments: Any) -> Bars:
    data = Bars(num_classes, **arguments)
    data.setup()
    return data


def built(data: Bars, seed: int = 0, **arguments: Any) -> ImageClassifier:
    torch.manual_seed(seed)
    options = {"backbone": "small_cnn", "backbone_options": {"widths": [8, 16]}, "lr": 0.01}
    model = ImageClassifier(**{**options, **arguments})
    model.build(len(data.class_names), data.image_shape)
    model.weigh_classes(data.class_counts())
    return model


def trainer(max_epochs: int = 1, **arguments: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(max_epochs=max_epochs, **{**settings, **arguments})


def train(epochs: int, backbone: str = "resnet10t", **knobs: object) -> tuple[dict, dict, ImageClassifier]:
    """State before and after training."""
    torch.manual_seed(0)
    data = Synthetic(num_images=48, image_size=32, batch_size=16)
    model = ImageClassifier(
        backbone, optimizer="sgd", lr=0.1, weight_decay=0.1, finetuning=FineTuning(**knobs)
    )
    data.setup()
    model.build(len(data.class_names), data.image_shape)
    before = copy.deepcopy(model.network.state_dict())
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    return before, model.network.state_dict(), model


def moved(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def in_fp16(scale: float) -> MixedPrecision:
    """trainer.precision=16-mixed, for which Lightning wants a GPU."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
