"""One trial, in a process of its own: trains, reports each epoch, says how it ended."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from experiments.callbacks import EpochRecorder
from experiments.config import Experiment, load_experiment
from experiments.ending import working_folder
from experiments.predictions import record_predictions
from experiments.ranks import Furnish
from experiments.record import record_start
from experiments.sweep.channel import Channel, Outcome, RelayedClient
from experiments.thresholds import label_thresholds
from experiments.throughput import Throughput
from experiments.tracking import RunRecord
from experiments.train import chosen_epoch, fit, prepare

LATENCY_ROUNDS = 20


@dataclass(frozen=True)
class Task:
    """What a trial's process is told.

    Attributes:
        sources: Recipes' names or YAML files; of several the last wins.
        overrides: The command line's keys, the trial's values and its seed.
        metric: The validation metric to report, such as val/accuracy.
        objectives: What else it is judged by.
        described: Its name in MLflow.
        record: Its run; None where nothing is recorded.
        threads: How many processor cores it may use.
        gpus: Those it may see, as CUDA_VISIBLE_DEVICES names them; None leaves the choice open.
    """

    sources: Sequence[str]
    overrides: Mapping[str, str]
    metric: str
    objectives: Sequence[str]
    described: str
    record: RunRecord | None
    threads: int
    gpus: str | None = None


class Reporting(Checkpoint):
    """Reports each epoch's metric, and stops the training when the answer says so.

    A Checkpoint, to stand between the recorder and the checkpoints: what is reported has been recorded,
    and a kill before the checkpoint is written only trains the epoch again.
    """

    def __init__(self, channel: Channel, metric: str, recorder: EpochRecorder) -> None:
        super().__init__()
        self.channel = channel
        self.metric = metric
        self.recorder = recorder
        self.pruned_epoch: int | None = None
        self.stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Whoever was killed may have reported these, or not; twice does no harm.
        for row in self.recorder.history:
            self._report(trainer, int(row["epoch"]), row[self.metric])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, trainer.current_epoch + 1, float(trainer.callback_metrics[self.metric]))

    def _report(self, trainer: pl.Trainer, epoch: int, value: float) -> None:
        verdict = self.channel.report(epoch, value)
        if verdict != "go on":
            trainer.should_stop = True  # the epoch is still saved
        self.stopped = verdict == "stop" and epoch < (trainer.max_epochs or 0)
        self.pruned_epoch = epoch if verdict == "prune" else None


def run_trial(task: Task, channel: Channel, furnish: Furnish | None = None) -> Outcome:
    """Trains on train, judges on validation, and never touches test.

    Args:
        task: What to train.
        channel: Where to report.
        furnish: Gives the experiment what has been loaded already.
    """
    try:
        # Without the search that it is part of, which would take as long again to parse.
        experiment = load_experiment(task.sources, {**task.overrides, "sweep": "null", "claim": "null"})
        experiment = replace(experiment, mlflow=replace(experiment.mlflow, run_name=task.described))
        if furnish is not None:
            furnish(experiment)
        prepare(experiment)
        record = task.record.through(RelayedClient(channel)) if task.record else None
        with working_folder(record, keep=True) as folder:
            resumed = (folder / "last.ckpt").is_file()
            if record is not None and not resumed:
                record_start(record, experiment)
            recorder = EpochRecorder(record, experiment.trainer.monitor, continued=True)
            reporting = Reporting(channel, task.metric, recorder)
            callbacks = [Throughput(), reporting]
            best_epoch = fit(
                experiment, recorder, folder, resumed=resumed, callbacks=callbacks, furnish=furnish
            )
            if reporting.stopped:
                return Outcome(stopped=True)
            if record is not None:
                metrics = chosen_epoch(experiment, recorder, best_epoch)
                if "best/epoch" not in record.metrics:  # a kill may have come after them
                    record.log_metrics(metrics, step=best_epoch)
                data, model = experiment.data, experiment.model
                with record.artifacts() as artifacts:
                    record_predictions(
                        artifacts, "val", model.predictions["val"], data, label_thresholds(model)
                    )
        history = recorder.history
        seconds = sum(row["epoch_seconds"] for row in history)
        further = [_objective(name, experiment, seconds) for name in task.objectives]
        return Outcome(
            values=(history[best_epoch - 1][task.metric], *further),
            epochs=len(history),
            seconds=seconds,
            pruned_epoch=reporting.pruned_epoch,
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Outcome(failure=type(error).__name__, error=reason, traceback=traceback.format_exc())


def _objective(name: str, experiment: Experiment, seconds: float) -> float:
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
