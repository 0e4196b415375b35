"""Times and measures one batch size."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import psutil
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.memory import garbage_collection_cuda

from ...config.experiment import Experiment
from ...config.trainer_settings import TrainerSettings
from ...runtime.out_of_memory import is_out_of_memory
from ...training.callbacks.throughput import MIB, Throughput
from ...training.callbacks.weight_averaging import WeightAveraging
from ...training.feature_cache import training_batches
from ...training.trainer import build_trainer
from .batch_size_search import Attempt, MeasureBatchSize

STEPS = 3  # in each of the short epochs; the first of them warms up
TIMED_SECONDS = 1.0  # in which small networks train many of them
NEVER = 2**31


class ShortEpochs(pl.Callback):
    """Ends the training when it has been timed for long enough; notes the images/s of each epoch."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.peak_mib = 0.0
        self._timed_at = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self._timed_at = time.perf_counter()
            return
        costs = trainer.callback_metrics
        self.rates.append(float(costs["cost/images_per_second"]))
        self.peak_mib = float(costs.get("cost/peak_gpu_memory_mib", costs["cost/peak_memory_mib"]))
        trainer.should_stop = time.perf_counter() - self._timed_at > TIMED_SECONDS


def attempt(experiment: Experiment, batch_size: int) -> Attempt | None:
    """Trains and validates a little with that batch size; None where memory runs out.

    Lightning's `Tuner.scale_batch_size` does not do: it takes three steps and leaves validation out, knows
    no end where a batch is all training images, and times nothing.
    """
    experiment.data.batch_size = batch_size
    _forget_memory()
    try:
        return _timed(experiment, batch_size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    _forget_memory()  # not before the error is gone, which holds on to what was on the device
    return None


def _timed(experiment: Experiment, batch_size: int) -> Attempt:
    watch = ShortEpochs()
    averaging = experiment.trainer.averaging
    # Averaged weights take memory from the start, and nothing else here.
    average = [WeightAveraging(replace(averaging, start_epoch=NEVER))] if averaging else []
    trainer = build_trainer(_short(experiment.trainer), [*average, Throughput(), watch])
    trainer.fit(experiment.model, datamodule=training_batches(experiment.model, experiment.data))
    fastest = max(watch.rates)  # whatever else the machine did made the others slower
    return Attempt(batch_size, fastest, watch.peak_mib)


def _short(settings: TrainerSettings) -> TrainerSettings:
    # A profiler of the user's would take the place of the one that times the steps; an end of the user's
    # might come before any was timed.
    limits: dict[str, Any] = {"limit_train_batches": STEPS, "limit_val_batches": 1, "profiler": None}
    limits |= {"max_steps": -1, "max_time": None, "fast_dev_run": False, "overfit_batches": 0.0}
    return replace(settings, max_epochs=NEVER, extra={**(settings.extra or {}), **limits})


def _forget_memory() -> None:
    garbage_collection_cuda()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


class WithinBudget:
    """Tries only what can't take more memory than is allowed: the system kills whoever takes too much.

    A batch of k times as many images takes at most k times what the last one took beyond the process
    as it was before; whatever does not depend on the batch makes it less.

    Args:
        measure: Trains with a size.
        budget_mib: Of the whole process, in MiB.
    """

    def __init__(self, measure: MeasureBatchSize, budget_mib: float) -> None:
        self._measure = measure
        self._budget_mib = budget_mib
        self._before_mib = psutil.Process().memory_info().rss / MIB
        self._last: Attempt | None = None

    def __call__(self, batch_size: int) -> Attempt | None:
        if self._last is not None and self._expected_mib(self._last, batch_size) > self._budget_mib:
            print(
                f"batch size {batch_size:>6,} is not tried: it may take more than {self._budget_mib:,.0f} MiB"
            )
            return None
        tried = self._measure(batch_size)
        if tried is None or tried.peak_mib > self._budget_mib:
            return None
        self._last = tried
        return tried

    def _expected_mib(self, last: Attempt, batch_size: int) -> float:
        taken = last.peak_mib - self._before_mib
        return self._before_mib + taken * max(1.0, batch_size / last.batch_size)


def free_share_mib(share: float) -> float:
    """This process's memory with a share of what is free, in MiB."""
    free = psutil.virtual_memory().available
    return float(psutil.Process().memory_info().rss + share * free) / MIB
