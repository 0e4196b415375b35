"""Trains a trial over folds.

Trials are compared after whole folds, which have the same images in all of them. A fold that has begun is
trained to its end: its epochs stand neither beside means over folds nor beside those of another fold.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

import pandas as pd

from ...evaluation.fold_summary import out_of_fold, summarize, summary_metrics
from ...evaluation.predictions import split_frame
from ...tracking.run import RunRecord
from ...training.distributed.launcher import DataProvider
from ...training.setup import prepare
from .messages import Channel, FoldReport, TrialRequest, TrialResult
from .trial_training import Training, fold_prefix, load_trial, objective, train_once


@dataclass(frozen=True)
class TrainedFold:
    """A fold that was trained to its end.

    Attributes:
        metrics: The chosen epoch on the fold's own images, as `best/...`.
        validated: How many those are.
        trained: Images trained on.
        epochs: Epochs trained.
        seconds: What they took.
    """

    metrics: Mapping[str, float]
    validated: int
    trained: int
    epochs: int
    seconds: float


@dataclass
class TrialFolds:
    """The folds of a trial that are done, as its run records them: what was killed is read from there.

    A fold is done once its line stands there, which is written last, in one call, and only once.

    Attributes:
        record: The trial's run; None only remembers.
        done: The folds from the first on.
        predictions: What was said of their images by networks that had not trained on them.
    """

    record: RunRecord | None
    done: list[TrainedFold] = field(default_factory=list)
    predictions: pd.DataFrame | None = None

    @classmethod
    def of(cls, record: RunRecord | None) -> TrialFolds:
        """Reads the folds that the run has now, not those it had when it was sent here."""
        folds = cls(record)
        if record is None:
            return folds
        now = record.reread()
        while f"{fold_prefix(len(folds.done))}best/epoch" in now.metrics:
            folds.done.append(_recorded(now, fold_prefix(len(folds.done))))
        if folds.done:
            folds.predictions = now.stored_predictions("val")
        return folds

    def add(self, training: Training) -> None:
        """Records the next fold, and the mean of those so far."""
        evaluation = training.evaluation()
        metrics, data = evaluation.metrics, training.experiment.data
        said = split_frame("val", evaluation.predictions["val"], data)
        earlier = [] if self.predictions is None else [self.predictions]
        # A kill may have come between these and the fold's line.
        earlier = [frame[~frame["id"].isin(said["id"])] for frame in earlier]
        self.predictions = out_of_fold([*earlier, said])
        sizes = {split: len(data.splits[split]) for split in ("train", "val")}
        self.done.append(
            TrainedFold(metrics, sizes["val"], sizes["train"], training.epochs, training.seconds)
        )
        if self.record is None:
            return
        with self.record.artifacts() as folder:
            (folder / "predictions").mkdir()
            self.predictions.to_parquet(folder / "predictions" / "val.parquet")
        prefix = fold_prefix(len(self.done) - 1)
        line = {**metrics, **{f"images/{split}": size for split, size in sizes.items()}}
        line = {f"{prefix}{name}": value for name, value in line.items()}
        self.record.log_metrics(line | summary_metrics(summarize(self.done)), step=len(self.done))


def run_folds(
    task: TrialRequest,
    channel: Channel,
    record: RunRecord | None,
    folder: Path,
    provide_data: DataProvider | None,
) -> TrialResult:
    """Trains fold after fold, until the study calls the trial hopeless or someone wants it stopped."""
    assert task.folds is not None
    folds = TrialFolds.of(record)
    # Of those that are done the last alone may not have been reported; twice does no harm.
    for fold in range(max(0, len(folds.done) - 1), task.folds):
        if fold == len(folds.done) and not _train_fold(task, channel, folds, folder, provide_data):
            return TrialResult(stopped=True)
        verdict = channel.report(FoldReport(fold, folds.done[fold].metrics[_best(task.metric)]))
        if fold + 1 == task.folds or verdict == "go on":
            continue
        if verdict == "stop":
            return TrialResult(stopped=True)
        return _outcome(task, folds, provide_data, pruned_folds=fold + 1)
    return _outcome(task, folds, provide_data)


def _train_fold(
    task: TrialRequest, channel: Channel, folds: TrialFolds, folder: Path, provide_data: DataProvider | None
) -> bool:
    """Trains and records the next fold, from its last checkpoint if there is one; False where stopped."""
    fold = len(folds.done)
    place = folder / fold_prefix(fold)
    training = train_once(task, channel, folds.record, place, provide_data, fold)
    if training.stopped:
        return False
    folds.add(training)
    rmtree(place)  # after the record, without which the fold would be trained again
    return True


def _outcome(
    task: TrialRequest, folds: TrialFolds, provide_data: DataProvider | None, pruned_folds: int | None = None
) -> TrialResult:
    seconds = sum(fold.seconds for fold in folds.done)
    further: list[float] = []
    if task.objectives:  # what is not of a fold's weights is the same for all
        experiment = load_trial(task, provide_data, 0)
        prepare(experiment)
        further = [objective(name, experiment, seconds) for name in task.objectives]
    return TrialResult(
        values=(statistics.fmean(fold.metrics[_best(task.metric)] for fold in folds.done), *further),
        epochs=sum(fold.epochs for fold in folds.done),
        seconds=seconds,
        pruned_folds=pruned_folds,
    )


def _recorded(run: RunRecord, prefix: str) -> TrainedFold:
    """A fold that is done, as its run has it."""
    own = {name.removeprefix(prefix): value for name, value in run.metrics.items() if name.startswith(prefix)}
    epochs = run.history([f"{prefix}epoch_seconds"])
    return TrainedFold(
        metrics={name: value for name, value in own.items() if name.startswith("best/")},
        validated=int(own["images/val"]),
        trained=int(own["images/train"]),
        epochs=len(epochs),
        seconds=sum(row[f"{prefix}epoch_seconds"] for row in epochs.values()),
    )


def _best(metric: str) -> str:
    """The name under which the chosen epoch's value of a validation metric is recorded.

    >>> _best("val/accuracy")
    'best/accuracy'
    """
    return metric.replace("val/", "best/", 1)
