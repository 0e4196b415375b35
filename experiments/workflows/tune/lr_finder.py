"""Learning-rate range test."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl

from darkroom.datamodules.loader import batches_per_epoch
from darkroom.lightning_modules.classifier import ImageClassifier, NonFiniteError

from ...config.experiment import Experiment
from ...training.feature_cache import training_batches
from ...training.trainer import build_trainer
from .lr_curve import RangeCurve

MEMORY = 0.9  # of the running mean that tells of divergence
DIVERGED = 4.0  # times the lowest running mean so far, as it is customary


@dataclass(frozen=True)
class Ramp:
    """Rates that rise in equal ratios.

    Args:
        low: The first.
        high: The last.
        steps: Of the optimizer.
    """

    low: float = 1e-6
    high: float = 10.0
    steps: int = 300

    def rate(self, step: int) -> float:
        """Returns the rate of a step, from 0.

        >>> [round(Ramp(0.01, 1, 3).rate(step), 6) for step in range(3)]
        [0.01, 0.1, 1.0]
        """
        return float(self.low * (self.high / self.low) ** (step / (self.steps - 1)))


class RangeTest(pl.Callback):
    """Sets the rate before each step, notes the loss after it, and ends the training once it diverges.

    Layers that learn at rates of their own keep their ratios to `model.lr`, which is what rises.
    """

    def __init__(self, ramp: Ramp, progress: bool = False) -> None:
        self.ramp = ramp
        self.diverged = False
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._progress = progress and sys.stdout.isatty()
        self._shown_at = 0.0
        self._parts: list[float] = []  # losses of batches whose gradients are added up
        self._mean = self._weight = 0.0
        self._lowest = math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ImageClassifier)
        groups = trainer.optimizers[0].param_groups
        self._ratios = [group["lr"] / pl_module.hparams["lr"] for group in groups]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rate = self.ramp.rate(len(self.losses))
        for group, ratio in zip(trainer.optimizers[0].param_groups, self._ratios, strict=True):
            group["lr"] = ratio * rate

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._parts.append(float(outputs["loss"]))
        stepped = trainer.global_step > len(self.losses)
        if stepped or not math.isfinite(self._parts[-1]):
            assert isinstance(pl_module, ImageClassifier)
            self._note(sum(self._parts) * pl_module.accumulation.correction)
            self._parts = []
            trainer.should_stop = self.diverged

    def _note(self, loss: float) -> None:
        self.rates.append(self.ramp.rate(len(self.losses)))
        self.losses.append(loss)
        self._mean = MEMORY * self._mean + (1 - MEMORY) * loss
        self._weight = MEMORY * self._weight + 1 - MEMORY
        running = self._mean / self._weight
        self.diverged = not running <= DIVERGED * self._lowest  # which NaN is not either
        self._lowest = min(self._lowest, running)
        self._show()

    def _show(self) -> None:
        if self._progress and time.perf_counter() - self._shown_at > 0.25:
            self._shown_at = time.perf_counter()
            told = f"step {len(self.losses)}/{self.ramp.steps}  lr {self.rates[-1]:.2g}"
            print(f"\r\033[K{told}  loss {self.losses[-1]:.4f}", end="", flush=True)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress:
            print("\r\033[K", end="", flush=True)

    def curve(self) -> RangeCurve:
        return RangeCurve(np.array(self.rates), np.array(self.losses), self.diverged)


def run_range_test(experiment: Experiment, ramp: Ramp) -> RangeCurve:
    """Trains through the ramp, from weights as they are; validates nothing and saves nothing.

    Lightning's own `Tuner.lr_find` does not do: it gives all groups of parameters one rate, steps the
    schedule by torch's method, which timm's do not have, judges by a running mean, which lags behind, and
    suggests by the slope over the rate itself, which favours the smallest ones.

    Args:
        experiment: Prepared, of a constant rate.
        ramp: The rates.
    """
    settings, data = experiment.trainer, experiment.data
    batches = batches_per_epoch(data.num_train_images, data.batch_size)
    steps_per_epoch = math.ceil(batches / settings.accumulate_batches)
    ends = {"max_steps": ramp.steps, "limit_val_batches": 0}
    settings = replace(
        settings,
        max_epochs=math.ceil(ramp.steps / steps_per_epoch),
        averaging=None,
        extra={**(settings.extra or {}), **ends},
    )
    test = RangeTest(ramp, settings.progress)
    trainer = build_trainer(settings, [test])
    with contextlib.suppress(NonFiniteError):  # an end that is expected
        trainer.fit(experiment.model, datamodule=training_batches(experiment.model, data))
    return test.curve()
