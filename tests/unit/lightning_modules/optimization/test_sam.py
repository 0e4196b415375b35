"""A sharpness-aware run is the two passes of Foret et al. 2021 written out, however its steps are made up."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from support.classifiers import Bars, built, in_fp16, prepared, trainer
from torch import nn

from darkroom.datamodules.augmentation.pipeline import Augmentation, crop_and_flip
from darkroom.datamodules.seeding import generator_for
from darkroom.lightning_modules import ImageClassifier

RHO = 0.1
SETTINGS: dict[str, Any] = {"dropout": 0.3, "optimizer": "sgd", "lr": 0.05, "l2": 1e-3}
SCALE = 256.0  # of gradients in fp16, which overflow at no step
AUGMENTATION = Augmentation(crop_padding=1, horizontal_flip=0.5)


def loss_of(data: Bars, model: ImageClassifier, batch: Any, precision: torch.dtype | None) -> torch.Tensor:
    pixels = crop_and_flip(
        data.splits["train"].images[batch.indices], data.augmentation, generator_for("cpu", batch.seed)
    )
    images = (pixels.float() / 255 - data.preprocess.mean) / data.preprocess.std
    torch.manual_seed(batch.seed ^ 0x5DEECE66D)
    with torch.autocast("cpu", precision) if precision else contextlib.nullcontext():
        loss = F.cross_entropy(model.network(images), data.splits["train"].targets[batch.indices])
        return loss + 1e-3 * sum(each.square().sum() for each in model.network.parameters() if each.ndim > 1)


def two_passes(
    data: Bars,
    model: ImageClassifier,
    epochs: int,
    clip: float | None = None,
    precision: torch.dtype | None = None,
    scale: float = 1.0,
) -> None:
    """What a run promises to be, written out: equations 2 and 3, and their algorithm 1."""
    weights = list(model.network.parameters())
    norms = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    optimizer = torch.optim.SGD(weights, lr=SETTINGS["lr"], momentum=0.9, nesterov=True)
    model.network.train()
    loader = data.train_dataloader()
    for batch in [batch for _ in range(epochs) for batch in loader]:
        gradients = torch.autograd.grad(scale * loss_of(data, model, batch, precision), weights)
        length = torch.cat([each.flatten() for each in gradients]).norm()
        before = copy.deepcopy(model.network.state_dict())
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight += RHO * gradient / length
        for norm in norms:
            norm.momentum = 0.0  # its statistics stay as they are
        optimizer.zero_grad()
        (scale * loss_of(data, model, batch, precision)).backward()
        for weight in weights:
            weight.grad /= scale
        for norm in norms:
            norm.momentum = 0.1
        model.network.load_state_dict(before)
        if clip is not None:
            nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()


def trained(
    data: Bars, epochs: int = 2, model: ImageClassifier | None = None, **arguments: Any
) -> pl.Trainer:
    fitted = trainer(max_epochs=epochs, **arguments)
    fitted.fit(model or built(data, sam_rho=RHO, **SETTINGS), data)
    return fitted


def assert_close(ours: ImageClassifier, theirs: ImageClassifier) -> None:
    state, expected = ours.network.state_dict(), theirs.network.state_dict()
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("arguments", "written_out"),
    [
        ({}, {}),
        ({"gradient_clip_val": 0.5}, {"clip": 0.5}),
        ({"precision": "bf16-mixed"}, {"precision": torch.bfloat16}),
        ({"plugins": in_fp16(SCALE)}, {"precision": torch.float16, "scale": SCALE}),
    ],
    ids=["plain", "clipped", "bf16", "fp16 with scaled gradients"],
)
def test_weights_and_statistics_are_those_of_two_passes_written_out(arguments, written_out):
    data = prepared(augmentation=AUGMENTATION, seed=3)
    model, bare = built(data, sam_rho=RHO, **SETTINGS), built(data, **SETTINGS)
    trained(data, model=model, **arguments)
    two_passes(prepared(augmentation=AUGMENTATION, seed=3), bare, epochs=2, **written_out)
    assert_close(model, bare)
    plain = built(data, **SETTINGS)
    trained(data, model=plain, **arguments)
    assert not torch.allclose(plain.network.head.weight, model.network.head.weight, atol=1e-2)


def test_gradients_that_overflow_cost_their_step_alone():
    data = prepared()
    model = built(data, sam_rho=RHO, **SETTINGS)
    before = copy.deepcopy(model.network.state_dict())
    precision = in_fp16(2.0**60)
    trained(data, epochs=1, model=model, plugins=precision, limit_train_batches=3)
    assert precision.scaler.get_scale() == 2.0**57
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert all(value.isfinite().all() for value in model.network.state_dict().values())


def test_accumulated_batches_make_the_step_of_one_that_holds_them_all():
    unnormalised = {**SETTINGS, "dropout": 0.0, "backbone_options": {"widths": [8], "normalization": "none"}}
    models = []
    for batch_size, accumulated in ((64, 1), (16, 4)):
        data = prepared(batch_size=batch_size)
        assert len(data.splits["train"]) == 128
        models.append(built(data, sam_rho=RHO, **unnormalised))
        trained(data, model=models[-1], accumulate_grad_batches=accumulated)
    assert_close(*models)


def test_an_epoch_reports_each_image_once_and_the_loss_where_the_weights_were():
    reported = []
    for rho in (None, RHO):
        data = prepared(batch_size=128, augmentation=AUGMENTATION)
        model = built(data, sam_rho=rho, **SETTINGS)
        reported.append(trained(data, epochs=1, model=model).callback_metrics["train/loss"])
        assert sorted(model.predictions["train"].indices.tolist()) == list(range(128))
    assert reported[0] == reported[1]


def test_what_is_frozen_is_not_moved_and_gets_no_gradient():
    data = prepared()
    model = built(data, sam_rho=RHO, **SETTINGS, finetuning={"strategy": "linear_probe"})
    before = copy.deepcopy(model.network.state_dict())
    trained(data, model=model)
    moved = {
        name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("rho", [0.0, -0.1, float("inf"), float("nan")])
def test_a_distance_that_is_none_is_refused(rho):
    with pytest.raises(ValueError, match=r"model.sam_rho must be positive, or null .* 0.05 is customary"):
        ImageClassifier(sam_rho=rho)
