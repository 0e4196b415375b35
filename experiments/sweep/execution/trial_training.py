"""Trains one split of a trial and reports each epoch."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from ...config.experiment import Experiment, load_experiment
from ...config.folds import fold_keys
from ...errors import RequestError
from ...tracking.run import RunRecord
from ...training.artifacts import record_start
from ...training.callbacks.epoch_end import EpochRecorder
from ...training.callbacks.throughput import Throughput
from ...training.checks import check_is_defined
from ...training.distributed.launcher import DataProvider
from ...training.loop import Evaluation, chosen_epoch
from ...training.run import fit
from ...training.setup import prepare
from .messages import Channel, EpochReport, TrialRequest

LATENCY_ROUNDS = 20


class Reporting(Checkpoint):
    """Reports each epoch's metric, and stops the training when the answer says so.

    A Checkpoint, to stand between the recorder and the checkpoints: what is reported has been recorded,
    and a kill before the checkpoint is written only trains the epoch again.
    """

    def __init__(self, channel: Channel, metric: str, recorder: EpochRecorder, fold: int | None) -> None:
        super().__init__()
        self.channel = channel
        self.metric = metric
        self.recorder = recorder
        self.fold = fold
        self.pruned_epoch: int | None = None
        self.stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Whoever was killed may have reported these, or not; twice does no harm.
        for row in self.recorder.history:
            if self.metric in row:
                self._report(trainer, int(row["epoch"]), row[self.metric])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        if self.metric in metrics:  # validation may be of some epochs alone
            self._report(trainer, trainer.current_epoch + 1, float(metrics[self.metric]))

    def _report(self, trainer: pl.Trainer, epoch: int, value: float) -> None:
        verdict = self.channel.report(EpochReport(epoch, value, self.fold))
        if verdict != "go on":
            trainer.should_stop = True  # the epoch is still saved
        self.stopped = verdict == "stop" and epoch < (trainer.max_epochs or 0)
        self.pruned_epoch = epoch if verdict == "prune" else None


@dataclass(frozen=True)
class Training:
    """What came of it.

    Attributes:
        experiment: With the weights of the chosen epoch.
        stopped: It was asked to stop, and can go on from its last checkpoint.
        pruned_epoch: The epoch after which the study called it hopeless.
    """

    experiment: Experiment
    recorder: EpochRecorder
    best_epoch: int
    stopped: bool
    pruned_epoch: int | None

    @property
    def epochs(self) -> int:
        """The number of epochs trained, those before an interruption included."""
        return len(self.recorder.history)

    @property
    def seconds(self) -> float:
        """What its epochs took."""
        return sum(row["epoch_seconds"] for row in self.recorder.history)

    def evaluation(self) -> Evaluation:
        """The chosen epoch on validation, with metrics `best/...`."""
        return chosen_epoch(self.experiment, self.recorder, self.best_epoch)

    def value(self, metric: str) -> float:
        """The chosen epoch's `val/...` metric, which is measured now if that epoch was not validated."""
        row = self.recorder.history[self.best_epoch - 1]
        return row[metric] if metric in row else self.evaluation().metrics[metric.replace("val/", "best/")]


def train_once(
    task: TrialRequest,
    channel: Channel,
    record: RunRecord | None,
    folder: Path,
    provide_data: DataProvider | None,
    fold: int | None = None,
) -> Training:
    """Trains on train, of the recipe's split or of a fold; begins where the last checkpoint in `folder` ends.

    Args:
        task: What to train.
        channel: Where to report.
        record: Where to record; a fold's metrics go below `fold_<number>/`.
        folder: Where checkpoints lie.
        provide_data: Gives the experiment what has been loaded already.
        fold: Which one; None of a trial without folds.
    """
    experiment = load_trial(task, provide_data, fold)
    prepare(experiment)
    try:
        check_is_defined({"sweep.metric": task.metric}, experiment.data)
    except ValueError as error:
        raise RequestError(str(error)) from error
    resumed = (folder / "last.ckpt").is_file()
    if record is not None and not resumed and not fold:  # the first fold stands for all
        record_start(record, experiment)
    prefix = "" if fold is None else fold_prefix(fold)
    recorder = EpochRecorder(record, experiment.trainer.monitor, continued=True, prefix=prefix)
    reporting = Reporting(channel, task.metric, recorder, fold)
    callbacks = [Throughput(), reporting]
    best_epoch = fit(
        experiment, recorder, folder, resumed=resumed, callbacks=callbacks, provide_data=provide_data
    )
    return Training(experiment, recorder, best_epoch, reporting.stopped, reporting.pruned_epoch)


def load_trial(task: TrialRequest, provide_data: DataProvider | None, fold: int | None = None) -> Experiment:
    """The trial's experiment, or that of one of its folds."""
    # Without the search that it is part of, which would take as long again to parse.
    keys = {**task.overrides, "sweep": "null", "claim": "null"}
    if fold is not None:
        assert task.folds is not None
        keys |= fold_keys(task.folds, fold)
    experiment = load_experiment(task.sources, keys)
    experiment = replace(experiment, mlflow=replace(experiment.mlflow, run_name=task.described))
    if provide_data is not None:
        provide_data(experiment)
    return experiment


def fold_prefix(fold: int) -> str:
    """What stands before the names of a fold's metrics."""
    return f"fold_{fold}/"


def objective(name: str, experiment: Experiment, seconds: float) -> float:
    """One of a sweep's further objectives, of a trial that trained for so long."""
    if name == "num_parameters":
        return float(experiment.model.num_parameters())
    if name == "train_seconds":
        return seconds
    assert name == "latency_ms"  # the settings have looked
    return latency_ms(experiment)


def latency_ms(experiment: Experiment) -> float:
    """Median time for one image through the network, in milliseconds, after a warm-up."""
    network = experiment.model.network.eval()
    image = torch.zeros(1, *experiment.data.image_shape, device=next(network.parameters()).device)
    times = []
    with torch.inference_mode():
        for _ in range(LATENCY_ROUNDS + 3):
            started_at = time.perf_counter()
            network(image).cpu()  # waits for a GPU
            times.append(time.perf_counter() - started_at)
    return 1000 * statistics.median(times[3:])
