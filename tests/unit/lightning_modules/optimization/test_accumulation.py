"""Each image of an optimizer step counts the same, in however many batches: a bare loop over steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.plugins import DoublePrecision
from support.classifiers import Bars, built, in_fp16, trainer

from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.loader import Batch
from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.mixup import mix
from darkroom.lightning_modules.seeding import mixing_generator

BATCH_SIZE = 8
# Without batch norms and dropout an image's gradient does not depend on the others of its batch.
SETTINGS: dict[str, Any] = {"backbone_options": {"widths": [8], "normalization": "none"}}
# Images and batches accumulated, and the images of each step of an epoch.
DIVISIONS = {
    "whole steps": (64, 2, [16, 16, 16, 16]),
    "a step of fewer batches": (40, 8, [40]),
    "a last step of fewer batches": (56, 3, [24, 24, 8]),
    "a short last batch in a whole step": (44, 2, [16, 16, 12]),
    "a short last batch in a short step": (60, 3, [24, 24, 12]),
    "a short last batch alone": (52, 2, [16, 16, 16, 4]),
    "a last batch with one image more": (41, 2, [16, 16, 9]),
}
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.05, weight_decay=0.0),
}


class Counted(Bars):
    """So many training images, in float64, to which sums in another order agree closely.

    Their classes are unequal in number, so that balanced weights of batches differ.
    """

    def __init__(self, count: int, **arguments: Any) -> None:
        super().__init__(val_fraction=0.0, **arguments)
        self.count = count

    def load(self) -> dict[str, ImageStore]:
        return {"train": self._make(self.count, "train", 0), "test": self._make(20, "test", 1)}

    def _make(self, count: int, name: str, seed: int) -> ImageStore:
        store = super()._make(count, name, seed)
        store.targets.copy_(torch.arange(count).square() % 7 % 3)
        return store

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        normalised = super().on_after_batch_transfer(batch, dataloader_idx)
        return normalised._replace(images=normalised.images.double())


def data_of(count: int, batch_size: int = BATCH_SIZE) -> Counted:
    data = Counted(count, batch_size=batch_size)
    data.setup()
    return data


def model_of(data: Counted, **arguments: Any) -> ImageClassifier:
    model = built(data, **{**SETTINGS, "lr": 0.05, **arguments}).double()
    if model.criterion.class_weights is not None:
        model.criterion.class_weights = model.criterion.class_weights.double()
    return model


def fitted(data: Counted, model: ImageClassifier, accumulated: int, **arguments: Any) -> pl.Trainer:
    done = trainer(max_epochs=2, accumulate_grad_batches=accumulated, precision="64-true", **arguments)
    done.fit(model, data)
    return done


def steps(data: Counted, accumulated: int) -> Iterator[list[Batch]]:
    """The batches of each optimizer step of two epochs."""
    loader = data.train_dataloader()
    for _ in range(2):
        batches = list(loader)
        for start in range(0, len(batches), accumulated):
            yield batches[start : start + accumulated]


def step_loss(data: Counted, model: ImageClassifier, batches: list[Batch]) -> torch.Tensor:
    """Of all images of a step at once, by torch's own function; mixing alone is of each batch."""
    hparams, inputs, targets = model.hparams, [], []
    for batch in batches:
        images, shares = data.preprocess(batch.images).double(), F.one_hot(batch.targets, 3).double()
        if hparams["mixup"] or hparams["cutmix"]:
            alphas = {name: hparams[name] for name in ("mixup", "cutmix")}
            with DoublePrecision().forward_context():  # in which numbers are drawn as float64 too
                images, shares = mix(images, shares, mixing_generator(batch.seed), **alphas)
        inputs.append(images)
        targets.append(shares if hparams["mixup"] or hparams["cutmix"] else batch.targets)
    weights = model.criterion.class_weights
    logits = model.network(torch.cat(inputs))
    loss = F.cross_entropy(logits, torch.cat(targets), weights, label_smoothing=hparams["label_smoothing"])
    squares = sum(each.square().sum() for each in model.network.parameters() if each.ndim > 1)
    return loss + hparams["l2"] * squares


def bare_loop(
    data: Counted, model: ImageClassifier, accumulated: int, optimizer: str, clip: float | None = None
) -> list[int]:
    """Trains for two epochs; how many images each step had."""
    weights = list(model.network.parameters())
    stepper, sizes = OPTIMIZERS[optimizer](weights), []
    model.network.train()
    for batches in steps(data, accumulated):
        sizes.append(sum(len(batch.targets) for batch in batches))
        if (rho := model.hparams["sam_rho"]) is not None:
            gradients = torch.autograd.grad(step_loss(data, model, batches), weights)
            length = torch.cat([each.flatten() for each in gradients]).norm()
            before = [each.detach().clone() for each in weights]
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight += rho * gradient / length
        stepper.zero_grad()
        step_loss(data, model, batches).backward()
        if rho is not None:
            with torch.no_grad():
                for weight, kept in zip(weights, before, strict=True):
                    weight.copy_(kept)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(weights, clip)
        stepper.step()
    return sizes


def assert_same_weights(ours: ImageClassifier, theirs: ImageClassifier, rtol: float = 1e-7) -> None:
    # Some 1,000 operations in float64, each right to 1e-16; adam divides by roots of small squares.
    for (name, value), expected in zip(
        ours.network.named_parameters(), theirs.network.parameters(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=rtol, atol=1e-2 * rtol, msg=name)


@pytest.mark.parametrize(
    ("division", "optimizer"),
    [*((name, "sgd") for name in DIVISIONS), ("a short last batch in a short step", "adamw")],
)
def test_a_step_is_that_of_the_mean_over_its_images(division: str, optimizer: str) -> None:
    count, accumulated, sizes = DIVISIONS[division]
    data = data_of(count)
    model, bare = (model_of(data, optimizer=optimizer, l2=1e-3) for _ in range(2))
    done = fitted(data, model, accumulated)
    assert bare_loop(data_of(count), bare, accumulated, optimizer) == sizes * 2
    assert done.global_step == 2 * len(sizes)
    assert_same_weights(model, bare)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("division", ["a last step of fewer batches", "a last batch with one image more"])
def test_accumulated_batches_are_one_batch_of_all_their_images(division: str, class_weights: str) -> None:
    count, accumulated, _ = DIVISIONS[division]
    models, losses = [], []
    for batch_size, batches in ((BATCH_SIZE, accumulated), (BATCH_SIZE * accumulated, 1)):
        data = data_of(count, batch_size)
        models.append(model_of(data, optimizer="sgd", class_weights=class_weights))
        losses.append(float(fitted(data, models[-1], batches).callback_metrics["train/loss"]))
    assert_same_weights(*models)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # recorded in float32


@pytest.mark.parametrize(
    ("model_arguments", "clip"),
    [
        ({"class_weights": "balanced"}, None),
        ({"class_weights": "balanced", "label_smoothing": 0.1, "l2": 1e-3}, None),
        ({"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1}, None),
        ({"mixup": 0.4, "class_weights": "balanced"}, None),
        ({"sam_rho": 0.1}, None),
        ({"sam_rho": 0.1, "class_weights": "balanced", "l2": 1e-3}, 0.1),
        ({}, 0.1),
    ],
    ids=["weights", "weights and penalty", "mixed", "mixed weights", "sharpness", "all of it", "clipped"],
)
def test_it_is_so_whatever_else_makes_the_gradient(model_arguments: dict, clip: float | None) -> None:
    data = data_of(60)
    model, bare = (model_of(data, optimizer="sgd", **model_arguments) for _ in range(2))
    fitted(data, model, 3, gradient_clip_val=clip)
    bare_loop(data_of(60), bare, 3, "sgd", clip)
    # The loss of mixed images is computed in float32, right to 6e-8 in each of the ten steps.
    assert_same_weights(model, bare, rtol=1e-4 if model.hparams["mixup"] else 1e-7)


class Single(Counted):
    """The same images as the network gets them everywhere else, in float32."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Bars.on_after_batch_transfer(self, batch, dataloader_idx)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    # bfloat16 keeps 8 bits and float16 11, which larger batches round in other places; unequal weights of
    # the images move these weights by 0.06.
    [({"precision": "bf16-mixed"}, 1e-2), ({"plugins": in_fp16(256.0)}, 2e-3)],
    ids=["bf16", "fp16 with scaled gradients"],
)
def test_it_is_so_in_16_bits(precision: dict, tolerance: float) -> None:
    models = []
    for batch_size, accumulated in ((BATCH_SIZE, 3), (3 * BATCH_SIZE, 1)):
        data = Single(52, batch_size=batch_size)
        data.setup()
        models.append(built(data, **{**SETTINGS, "optimizer": "sgd", "lr": 0.05}))
        trainer(max_epochs=3, accumulate_grad_batches=accumulated, **precision).fit(models[-1], data)
    for ours, theirs in zip(*(model.network.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_it_is_so_where_a_limit_ends_epochs_early() -> None:
    data = data_of(64)
    models = [model_of(data, optimizer="sgd") for _ in range(2)]
    done = fitted(data, models[0], 2, limit_train_batches=3)
    assert done.global_step == 4
    # The second epoch begins where the first one stopped.
    stepper, loader = OPTIMIZERS["sgd"](models[1].network.parameters()), data_of(64).train_dataloader()
    batches = list(loader)[:6]
    models[1].network.train()
    for step in (batches[:2], batches[2:3], batches[3:5], batches[5:]):
        stepper.zero_grad()
        step_loss(data, models[1], step).backward()
        stepper.step()
    assert_same_weights(*models)


def test_equal_batches_are_added_up_as_they_always_were() -> None:
    # Nothing is multiplied where nothing needs it, so that such runs keep their bits.
    data = data_of(64)
    model = model_of(data, optimizer="sgd")
    fitted(data, model, 2)
    assert model.accumulation.correction == 1
    bare = model_of(data, optimizer="sgd")
    stepper = OPTIMIZERS["sgd"](bare.network.parameters())
    bare.network.train()
    for batches in steps(data_of(64), 2):
        stepper.zero_grad()
        for batch in batches:
            images = data.preprocess(batch.images).double()
            (F.cross_entropy(bare.network(images), batch.targets) / 2).backward()
        stepper.step()
    for ours, theirs in zip(model.network.parameters(), bare.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
