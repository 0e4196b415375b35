"""Fits one process; evaluates a model on a split."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn

from darkroom.lightning_modules.classifier import NonFiniteError
from darkroom.lightning_modules.metrics.epoch_outputs import Predictions
from darkroom.lightning_modules.optimization.fsdp import FullySharded

from ..config.experiment import Experiment
from ..errors import RunError
from .callbacks.checkpoints import build_checkpoints
from .callbacks.epoch_end import EpochRecorder, StopTogether, build_early_stopping
from .callbacks.weight_averaging import WeightAveraging
from .feature_cache import training_batches
from .trainer import build_trainer


def train_epochs(
    experiment: Experiment,
    recorder: EpochRecorder,
    folder: Path,
    *,
    resumed: bool = False,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """Trains in this process, be it the only one or one rank of several."""
    settings, model, data = experiment.trainer, experiment.model, experiment.data
    has_validation = "val" in data.splits
    early_stopping = build_early_stopping(settings) if has_validation else None
    trainer = build_trainer(
        settings,
        [
            *([early_stopping] if early_stopping else []),
            *([WeightAveraging(settings.averaging)] if settings.averaging else []),
            recorder,
            *callbacks,
            StopTogether(),
            *build_checkpoints(folder, settings, has_validation),  # last, so that what they save is recorded
        ],
    )
    if settings.compile:
        compile_network(model.network, settings.deterministic)
    last = folder / "last.ckpt" if resumed else None
    whole = model.network
    if isinstance(trainer.strategy, FullySharded):  # which is for good; the chosen weights go into the whole
        model.network = copy.deepcopy(whole)
    trainer.fit(model, datamodule=training_batches(model, data), ckpt_path=last, weights_only=True)
    model.network = whole


def compile_network(network: nn.Module, deterministic: bool) -> None:
    """Has it compiled at its next steps, as if it were the first one of this process.

    What has been compiled before would decide which kernels serve a batch of an unusual size; and kernels
    that are chosen by timing them may add up in another order each time.
    """
    torch.compiler.reset()
    network.compile(options={"deterministic": deterministic})


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on some splits.

    Attributes:
        metrics: By name, such as test/accuracy.
        predictions: By split; each image of the split once.
    """

    metrics: dict[str, float]
    predictions: dict[str, Predictions]


def evaluate(experiment: Experiment, splits: Sequence[str]) -> Evaluation:
    """Judges the model as it is on the given splits.

    Raises:
        RunError: The network's outputs are not finite.
    """
    # On one device: the other ranks have left, and what training took hours for takes this seconds.
    settings = replace(experiment.trainer, early_stopping=None, devices=1, num_nodes=1)
    trainer = build_trainer(settings, [])
    metrics: dict[str, float] = {}
    predictions: dict[str, Predictions] = {}
    for split in splits:
        go = trainer.validate if split == "val" else trainer.test
        try:
            go(experiment.model, datamodule=experiment.data, verbose=False)
        except NonFiniteError as error:
            raise RunError(str(error)) from error
        metrics |= {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{split}/")
        }
        predictions[split] = experiment.model.predictions["val" if split == "val" else "test"]
    return Evaluation(metrics, predictions)


def chosen_epoch(experiment: Experiment, recorder: EpochRecorder, epoch: int) -> Evaluation:
    """The chosen checkpoint on validation, with metrics `best/...`: `val/...` would pass for an epoch's.

    Training has judged it already, unless the process that did is gone. Without validation images only
    `best/epoch` is known.
    """
    judged = Evaluation({}, {})
    if "val" in experiment.data.splits:
        seen = recorder.validation(epoch)
        judged = evaluate(experiment, ["val"]) if seen is None else Evaluation(seen[0], {"val": seen[1]})
    metrics = {name.replace("val/", "best/"): value for name, value in judged.metrics.items()}
    return Evaluation(metrics | {"best/epoch": epoch}, judged.predictions)
