"""One run, in order: set up, record, fit, select, test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl

from ..config.experiment import Experiment
from ..config.identity import INERT
from ..evaluation.calibration import calibrate
from ..evaluation.thresholds import at_thresholds, label_thresholds
from ..tracking.prediction_artifacts import record_predictions, record_temperatures, record_thresholds
from ..tracking.provenance_diff import check_same_images
from ..tracking.run import RunRecord
from ..tracking.run_lifecycle import recording, working_folder
from ..tracking.store import Store, system_metrics
from .artifacts import record_figures, record_model, record_start
from .callbacks.checkpoints import chosen_checkpoint, load_weights, save_untrained
from .callbacks.epoch_end import EpochRecorder, ProgressLine
from .callbacks.throughput import Throughput
from .class_order import check_has_a_head
from .distributed.launcher import DataProvider, other_ranks
from .loop import chosen_epoch, evaluate, train_epochs
from .result import Result
from .setup import prepare


def train(
    experiment: Experiment,
    store: Store | None,
    *,
    resumed: RunRecord | None = None,
    parent: RunRecord | None = None,
    tags: Mapping[str, str] | None = None,
    started: Callable[[RunRecord], None] = lambda record: None,
    tested: bool = True,
) -> Result:
    """Trains, tests the chosen checkpoint once, and records all of it; of 0 epochs the first weights.

    Args:
        experiment: What to train.
        store: Where to record; None keeps nothing.
        resumed: The run to continue from its last checkpoint.
        parent: The run under which MLflow shows this one.
        tags: Tags of the run besides recipe and seed.
        started: Called with the run once it exists.
        tested: Judge the chosen checkpoint on the test images, where there are any.

    Raises:
        RequestError: The data or the network is not available, or the images are not those that the run
            to continue was begun with; no run was created.
        RunError: Training failed; the run is FAILED with its traceback.
        Interrupted: Ctrl-C, or the process was told to leave; the run is KILLED and can be resumed.
    """
    prepare(experiment)
    if experiment.trainer.max_epochs == 0:
        experiment.data.notes += check_has_a_head(experiment.model, experiment.data)
    if resumed is not None:
        assert store is not None
        check_same_images(resumed, experiment.data)
        store.continue_run(resumed)
    loaded = experiment.model.loaded_weights
    for note in (*experiment.data.notes, *(loaded.notes if loaded else ())):
        print(f"note: {note}")
    record = resumed or start_record(experiment, store, parent=parent, tags=tags, started=started)
    with recording(record), working_folder(record) as folder:
        recorder = EpochRecorder(record, experiment.trainer.monitor, continued=resumed is not None)
        throughput = Throughput()
        progress = [ProgressLine()] if experiment.trainer.progress else []
        if experiment.trainer.max_epochs == 0:
            best_epoch = save_untrained(experiment.model, folder)
            return conclude(experiment, recorder, best_epoch, folder, tested)
        with system_metrics(record if experiment.mlflow.system_metrics else None):
            best_epoch = fit(
                experiment,
                recorder,
                folder,
                resumed=resumed is not None,
                callbacks=[throughput, *progress],
            )
        if (hint := throughput.hint(experiment.data)) is not None:
            print(hint)
        return conclude(experiment, recorder, best_epoch, folder, tested)


def start_record(
    experiment: Experiment,
    store: Store | None,
    *,
    parent: RunRecord | None = None,
    tags: Mapping[str, str] | None = None,
    started: Callable[[RunRecord], None] = lambda record: None,
) -> RunRecord | None:
    """Creates the run, says so to `started`, and records what is known before training."""
    if store is None:
        return None
    name = experiment.mlflow.run_name or run_name(experiment)
    recipe_tags = {"recipe": experiment.name, "seed": str(experiment.seed)}
    record = store.start_run(experiment.name, name, {**recipe_tags, **(tags or {})}, parent)
    started(record)
    record_start(record, experiment)
    return record


def fit(
    experiment: Experiment,
    recorder: EpochRecorder,
    folder: Path,
    *,
    resumed: bool = False,
    callbacks: Sequence[pl.Callback] = (),
    provide_data: DataProvider | None = None,
) -> int:
    """Trains, on all devices, and loads the chosen checkpoint's weights; returns the epoch they are of."""
    with other_ranks(experiment, folder, resumed=resumed, provide_data=provide_data):
        train_epochs(experiment, recorder, folder, resumed=resumed, callbacks=callbacks)
    return load_weights(experiment.model, chosen_checkpoint(folder))


def conclude(
    experiment: Experiment, recorder: EpochRecorder, best_epoch: int, folder: Path, tested: bool = True
) -> Result:
    """Judges the chosen checkpoint once on test, where there is one; records what it leaves."""
    data, model, record = experiment.data, experiment.model, recorder.run
    splits = [split for split in ("val", "test") if split in data.splits and (tested or split == "val")]
    chosen = chosen_epoch(experiment, recorder, best_epoch)
    metrics, predictions = dict(chosen.metrics), dict(chosen.predictions)
    thresholds = label_thresholds(model, predictions.get("val"))
    calibration = None
    if "test" in splits:
        judged = evaluate(experiment, ["test"])
        metrics |= judged.metrics
        predictions |= judged.predictions
        if thresholds is not None and "val" in splits:
            metrics |= at_thresholds(predictions["test"], thresholds, "test")
        calibration = calibrate(predictions.get("val"), predictions["test"])
        metrics |= calibration.metrics
    if record is not None:
        record.log_metrics(metrics, step=best_epoch)
        with record.artifacts() as artifacts:
            for split in splits:
                record_predictions(artifacts, split, predictions[split], data, thresholds)
            if thresholds is not None:
                record_thresholds(artifacts, thresholds, data.class_names)
            if calibration is not None:
                record_temperatures(artifacts, calibration.temperatures, data.class_names)
            shown = splits[-1]  # test, where there is one
            curves = recorder.curves()
            record_figures(
                artifacts, data, shown, predictions[shown], curves, best_epoch, thresholds, calibration
            )
            (artifacts / "checkpoints").mkdir()
            shutil.copy(chosen_checkpoint(folder), artifacts / "checkpoints" / "best.ckpt")
        record_model(record, data, model, thresholds)
    return Result(metrics, best_epoch, record)


def run_name(experiment: Experiment) -> str:
    """What was overridden, in short, or the seed: `lr=0.01 dropout=0.2`."""
    varied = {
        key.rpartition(".")[2]: value for key, value in experiment.overrides.items() if key not in INERT
    }
    if not varied:
        varied = {"seed": str(experiment.seed)}
    return " ".join(f"{key}={value}" for key, value in varied.items())[:120]
