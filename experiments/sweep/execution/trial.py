"""Runs one trial in its process."""

from __future__ import annotations

import traceback
from pathlib import Path

from ...evaluation.thresholds import label_thresholds
from ...tracking.prediction_artifacts import record_predictions
from ...tracking.run import RunRecord
from ...tracking.run_lifecycle import working_folder
from ...training.distributed.launcher import DataProvider
from .messages import Channel, TrialRequest, TrialResult
from .trial_folds import run_folds
from .trial_training import Training, objective, train_once


def run_trial(task: TrialRequest, channel: Channel, provide_data: DataProvider | None = None) -> TrialResult:
    """Trains on train, judges on validation, and never touches test.

    Args:
        task: What to train.
        channel: Where to report.
        provide_data: Gives the experiment what has been loaded already.
    """
    try:
        record = task.record_through(channel)
        with working_folder(record, keep=True) as folder:
            run = run_folds if task.folds else run_split
            return run(task, channel, record, folder, provide_data)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return TrialResult(failure=type(error).__name__, error=reason, traceback=traceback.format_exc())


def run_split(
    task: TrialRequest,
    channel: Channel,
    record: RunRecord | None,
    folder: Path,
    provide_data: DataProvider | None,
) -> TrialResult:
    """A trial that is judged on the recipe's own validation images."""
    training = train_once(task, channel, record, folder, provide_data)
    if training.stopped:
        return TrialResult(stopped=True)
    if record is not None:
        conclude(training, record)
    value = training.value(task.metric)
    further = [objective(name, training.experiment, training.seconds) for name in task.objectives]
    return TrialResult(
        values=(value, *further),
        epochs=training.epochs,
        seconds=training.seconds,
        pruned_epoch=training.pruned_epoch,
    )


def conclude(training: Training, record: RunRecord) -> None:
    """Records the chosen epoch's metrics, and what it said of the validation images."""
    evaluation = training.evaluation()
    if "best/epoch" not in record.metrics:  # a kill may have come after them
        record.log_metrics(evaluation.metrics, step=training.best_epoch)
    data, model = training.experiment.data, training.experiment.model
    with record.artifacts() as artifacts:
        validation = evaluation.predictions["val"]
        record_predictions(artifacts, "val", validation, data, label_thresholds(model, validation))
