"""One run, told in order: seed, data, model, record, fit, choose, test."""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from experiments.averaging import WeightAveraging
from experiments.calibration import calibrate, record_temperatures, summary
from experiments.callbacks import (
    EpochRecorder,
    ProgressLine,
    StopTogether,
    build_early_stopping,
)
from experiments.checkpoints import build_checkpoints, chosen_checkpoint, load_weights, save_untrained
from experiments.conditions import check_same_images
from experiments.config import Experiment, load_experiment
from experiments.ending import recording, working_folder
from experiments.errors import RequestError, RunError
from experiments.features import training_batches
from experiments.identity import INERT
from experiments.predictions import record_predictions
from experiments.ranks import Furnish, help_train, other_ranks
from experiments.record import record_figures, record_model, record_start
from experiments.refusals import (
    check_devices,
    check_epochs,
    check_goes_with_devices,
    check_is_defined,
    check_is_reported,
    check_takes_extra,
    monitored,
)
from experiments.startup import without_collections
from experiments.thresholds import at_thresholds, label_thresholds, record_thresholds
from experiments.throughput import Throughput
from experiments.tracking import RunRecord, Store, open_store, system_metrics
from experiments.trainer import build_trainer
from experiments.untrained import check_has_a_head, class_order_notes
from lightning_modules.classifier import NonFiniteError
from lightning_modules.metrics import METRIC_NAMES, TUNED_METRICS
from lightning_modules.sharding import FullySharded


@dataclass(frozen=True)
class Result:
    """What came of a run: its last metrics, the chosen epoch, and the history of each metric."""

    metrics: dict[str, float]
    best_epoch: int
    record: RunRecord | None


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """`darkroom train`."""
    if arguments.resume is not None:
        if arguments.experiments or overrides or arguments.folds is not None or arguments.boost is not None:
            raise RequestError("--resume continues a run as it was recorded: give no experiment and no keys")
        from experiments.resume import resume  # which trains by what stands here

        result = resume(arguments.resume)
        if result is None:
            return
    else:
        if not arguments.experiments:
            raise RequestError("which experiment? Name a recipe (darkroom list) or a YAML file")
        if arguments.folds is not None and arguments.boost is not None:
            raise RequestError("--folds and --boost are two ways to train several: give one of them")
        if arguments.folds is not None:
            from experiments.cross_validation import cross_validate  # which trains by what stands here

            cross_validate(arguments.experiments, overrides, arguments.folds)
            return
        if arguments.boost is not None:
            from experiments.ensemble.boosting import boost  # likewise

            boost(arguments.experiments, overrides, arguments.boost)
            return
        with without_collections():  # what both make lasts as long as the run
            experiment = load_experiment(arguments.experiments, overrides)
            if help_train(experiment.trainer):
                return
            recorded_in = open_store() if experiment.mlflow.enabled else None
        result = train(experiment, recorded_in)
    print_result(result)


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
        RequestError: The data or the network is not to be had, or the images are not those that the run
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


def prepare(experiment: Experiment) -> None:
    """Makes the network and loads the data: all that can be refused before a run exists.

    Raises:
        RequestError: The data or the network is not to be had, or nothing would judge the network.
    """
    data, model = experiment.data, experiment.model
    pl.seed_everything(experiment.seed, verbose=False)
    try:
        check_devices(experiment.trainer)
        check_epochs(experiment.trainer, model)
        experiment.build_model()
        experiment.settle_trainer()
        check_takes_extra(experiment.trainer)
        check_is_reported(experiment.trainer, model.task)
        check_goes_with_devices(experiment.trainer, model)
        data.prepare_data()
        data.setup()
        check_is_defined(monitored(experiment.trainer), data)
        if data.normalization == "backbone":
            data.normalize_with(*model.pretrained_statistics())
    except (ValueError, OSError) as error:
        raise RequestError(str(error)) from error
    if not {"val", "test"} & set(data.splits):
        raise RequestError(
            "there is nothing to judge the network on: the data has no test images, and "
            f"data.val_fraction={data.division.val_fraction:g} held none out for validation; hold some out "
            "with data.val_fraction=0.1 or data.test_fraction=0.2. What is in groups needs two of them"
        )
    data.notes += class_order_notes(model, data)
    model.weigh_classes(data.class_counts(), data.num_train_images)
    if experiment.trainer.channels_last:
        model.network.to(memory_format=torch.channels_last)


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
    furnish: Furnish | None = None,
) -> int:
    """Trains, on all devices, and loads the chosen checkpoint's weights; returns the epoch they are of."""
    with other_ranks(experiment, folder, resumed=resumed, furnish=furnish):
        train_epochs(experiment, recorder, folder, resumed=resumed, callbacks=callbacks)
    return load_weights(experiment.model, chosen_checkpoint(folder))


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


def evaluate(experiment: Experiment, splits: Sequence[str]) -> dict[str, float]:
    """Metrics of the model as it is on the given splits; its `predictions` are left on the model.

    Raises:
        RunError: The network's outputs are not finite.
    """
    # On one device: the other ranks have left, and what training took hours for takes this seconds.
    settings = replace(experiment.trainer, early_stopping=None, devices=1, num_nodes=1)
    trainer = build_trainer(settings, [])
    metrics: dict[str, float] = {}
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
    return metrics


def chosen_epoch(experiment: Experiment, recorder: EpochRecorder, epoch: int) -> dict[str, float]:
    """The chosen checkpoint on validation, as `best/...`; a metric `val/...` would pass for an epoch's.

    Its predictions are left on the model. Training has judged it already, unless the process that did
    is gone.
    """
    metrics: dict[str, float] = {}
    if "val" in experiment.data.splits:
        seen = recorder.validation(epoch)
        if seen is None:
            metrics = evaluate(experiment, ["val"])
        else:
            metrics, experiment.model.predictions["val"] = seen
    return {name.replace("val/", "best/"): value for name, value in metrics.items()} | {"best/epoch": epoch}


def conclude(
    experiment: Experiment, recorder: EpochRecorder, best_epoch: int, folder: Path, tested: bool = True
) -> Result:
    """Judges the chosen checkpoint once on test, where there is one; records what it leaves."""
    data, model, record = experiment.data, experiment.model, recorder.run
    splits = [split for split in ("val", "test") if split in data.splits and (tested or split == "val")]
    metrics = chosen_epoch(experiment, recorder, best_epoch)
    if "test" in splits:
        metrics |= evaluate(experiment, ["test"])
    thresholds = label_thresholds(model)
    if thresholds is not None and splits == ["val", "test"]:
        metrics |= at_thresholds(model.predictions["test"], thresholds, "test")
    calibration = None
    if "test" in splits:
        calibration = calibrate(model.predictions.get("val"), model.predictions["test"])
        metrics |= calibration.metrics
    if record is not None:
        record.log_metrics(metrics, step=best_epoch)
        with record.artifacts() as artifacts:
            for split in splits:
                record_predictions(artifacts, split, model.predictions[split], data, thresholds)
            if thresholds is not None:
                record_thresholds(artifacts, thresholds, data.class_names)
            if calibration is not None:
                record_temperatures(artifacts, calibration.temperatures, data.class_names)
            judged = splits[-1]  # test, where there is one
            predictions, curves = model.predictions[judged], recorder.curves()
            record_figures(artifacts, data, judged, predictions, curves, best_epoch, thresholds, calibration)
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


def print_result(result: Result) -> None:
    """The metrics of the chosen epoch and the run id, last on the screen."""
    table = Table(title=f"chosen: epoch {result.best_epoch}" if result.best_epoch else "untrained")
    table.add_column("metric")
    stages = [stage for stage in ("best", "test") if f"{stage}/loss" in result.metrics]
    for stage in stages:
        table.add_column("validation" if stage == "best" else stage, justify="right")
    for name in (*METRIC_NAMES, *TUNED_METRICS):
        values = [result.metrics.get(f"{stage}/{name}") for stage in stages]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    console = Console()
    console.print(table)
    if (calibration := summary(result.metrics)) is not None:
        console.print(calibration, highlight=False)
    if result.record is not None:
        console.print(f"run {result.record.run_id}  ({result.record.name})", highlight=False)
