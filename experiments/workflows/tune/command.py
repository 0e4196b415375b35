"""`darkroom tune`: a learning rate from a range test, or the batch size that fits and is fast."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

import pandas as pd

from ...config.experiment import Experiment, load_experiment
from ...config.hardware_defaults import trains_on_gpu
from ...errors import RequestError
from ...tracking.run import RunRecord
from ...tracking.run_lifecycle import recording
from ...tracking.store import open_store
from ...training.run import start_record
from ...training.setup import prepare
from ...training.trainer import check_trains_here
from .batch_size_probe import WithinBudget, attempt, free_share_mib
from .batch_size_search import Asked, Attempt, BatchSizeSearch, MeasureBatchSize, search, sizes_told
from .lr_curve import RangeCurve, Suggestion, rates_told
from .lr_finder import Ramp, run_range_test

MIN_STEPS = 50
FREE_SHARE = 0.5  # of free memory that is taken without asking


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Tests learning rates, or batch sizes; trains nothing and changes no recipe.

    Raises:
        RequestError: The request was wrong, or the data is not available; nothing was tried.
        RunError: The trying failed; the run is FAILED.
    """
    check(arguments)
    if arguments.batch_size:
        tune_batch_size(arguments, overrides)
    else:
        tune_learning_rate(arguments, overrides)


def check(arguments: argparse.Namespace) -> None:
    """Refuses what can't be asked for, and what would be ignored.

    Raises:
        RequestError: The arguments hold such an option.
    """
    for option, given, of_sizes in (
        ("--steps", arguments.steps, False),
        ("--lr-range", arguments.lr_range, False),
        ("--memory", arguments.memory, True),
    ):
        if given is not None and of_sizes != arguments.batch_size:
            which = "belongs to" if of_sizes else "is of the learning-rate range test, and is not for"
            raise RequestError(f"{option} {which} --batch-size")
    if arguments.steps is not None and arguments.steps < MIN_STEPS:
        raise RequestError(f"--steps must be at least {MIN_STEPS}, got {arguments.steps}; 300 are customary")
    low, high = arguments.lr_range or (Ramp.low, Ramp.high)
    if not 0 < low < high < math.inf:
        raise RequestError(f"--lr-range must rise from a positive rate, got {low:g} {high:g}; try 1e-6 10")
    if arguments.memory is not None and arguments.memory <= 0:
        raise RequestError(f"--memory must be positive, in GiB, got {arguments.memory:g}")


def tune_learning_rate(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Makes the range test, records its curve, tells what it suggests."""
    low, high = arguments.lr_range or (Ramp.low, Ramp.high)
    ramp = Ramp(low, high, arguments.steps or Ramp.steps)
    experiment = load_steady(arguments.experiments, overrides)
    with tried(experiment, "lr-range-test", "learning-rate range test") as record:
        curve = run_range_test(experiment, ramp)
        suggestion = curve.suggestion()
        if record is not None:
            record_curve(record, curve, suggestion, experiment.model.hparams["lr"])
    for line in rates_told(curve, suggestion):
        print(line)
    if suggestion is not None:
        rate = f"{suggestion.tenth:.2g}"
        print(f"  {command('train', arguments.experiments, {**overrides, 'model.lr': rate})}")
    tell_run(record)


def tune_batch_size(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Tries batch sizes, records what they gave, tells which fit and which are fast."""
    # At a rate at which weights hardly move: memory and time do not depend on them, and no loss diverges.
    experiment = load_steady(arguments.experiments, {**overrides, "model.lr": "1e-9"})
    on_gpu = trains_on_gpu(experiment.trainer.accelerator)
    if on_gpu and arguments.memory is not None:
        raise RequestError("--memory is for the CPU: on a GPU its own memory ends the search")
    with tried(experiment, "batch-size-test", "batch-size test") as record:
        asked = Asked(
            num_images=experiment.data.num_train_images,
            configured=experiment.data.batch_size,
            accumulated=experiment.trainer.accumulate_batches,
            to_the_limit=on_gpu or arguments.memory is not None,
        )
        found = search(measuring(experiment, on_gpu, arguments.memory), asked)
        if record is not None:
            record_sizes(record, found)
    for line in sizes_told(found):
        print(line)
    sizes = {**overrides, "data.batch_size": str(found.sufficient)}
    print("a learning rate belongs to a batch size: with another one, test it again by")
    print(f"  {command('tune', arguments.experiments, sizes)}")
    tell_run(record)


def load_steady(sources: Sequence[str], overrides: Mapping[str, str]) -> Experiment:
    """The experiment at a constant rate, with all parts trained that it ever trains.

    Raises:
        RequestError: The configuration is invalid, or wants several devices.
    """
    steady = {**overrides, "model.schedule": "constant", "model.warmup_epochs": "0"}
    experiment = load_experiment(sources, steady)
    check_trains_here(experiment.trainer, "darkroom tune")
    if experiment.trainer.devices > 1:
        raise RequestError(
            "darkroom tune tries on one device: add --trainer.devices=1. What fits there is one device's "
            "share of data.batch_size; a learning rate belongs to the whole of it"
        )
    if experiment.model.finetuning.unfreezes:
        strategy = experiment.model.finetuning.strategy
        print(f"note: tried as model.finetuning.strategy={strategy} ends, with all parts trained")
        experiment = load_experiment(sources, {**steady, "model.finetuning.strategy": "full"})
    return experiment


@contextmanager
def tried(experiment: Experiment, role: str, name: str) -> Iterator[RunRecord | None]:
    """Loads what is tried, inside a run that nothing takes for a training; None where nothing is recorded."""
    store = open_store() if experiment.mlflow.enabled else None
    prepare(experiment)
    named = replace(experiment.mlflow, run_name=experiment.mlflow.run_name or name)
    record = start_record(replace(experiment, mlflow=named), store, tags={"role": role})
    with recording(record, to_continue=""):
        yield record


def measuring(experiment: Experiment, on_gpu: bool, budget_gib: float | None) -> MeasureBatchSize:
    """Tries a size and prints what it gave; on the CPU only what can't take too much memory."""

    def measure(batch_size: int) -> Attempt | None:
        tried = attempt(experiment, batch_size)
        told = "does not fit"
        if tried is not None:
            told = f"{tried.images_per_second:>10,.0f} images/s {tried.peak_mib:>10,.0f} MiB"
        print(f"batch size {batch_size:>6,} {told}", flush=True)
        return tried

    if on_gpu:
        return measure
    return WithinBudget(measure, free_share_mib(FREE_SHARE) if budget_gib is None else 1024 * budget_gib)


def record_curve(
    record: RunRecord, curve: RangeCurve, suggestion: Suggestion | None, configured: float
) -> None:
    """The points, the figure, and what is suggested."""
    from ...reporting.style import save  # matplotlib is not needed before the end
    from .lr_plot import draw_range_test

    if suggestion is not None:
        rates = {"steepest": suggestion.steepest, "lowest": suggestion.lowest, "suggested": suggestion.tenth}
        record.log_metrics({f"lr_range/{name}": rate for name, rate in rates.items()})
    points = {"lr": curve.rates, "loss": curve.losses, "smoothed": curve.smoothed()}
    with record.artifacts() as folder:
        for part in ("figures", "tables"):
            (folder / part).mkdir()
        pd.DataFrame(points).to_csv(folder / "tables" / "lr_range.csv", index_label="step")
        save(draw_range_test(curve, suggestion, configured), folder / "figures" / "lr_range.png")


def record_sizes(record: RunRecord, found: BatchSizeSearch) -> None:
    """A row for each size that was tried and fits, and what is suggested."""
    record.log_metrics({"batch_size/largest": found.largest, "batch_size/sufficient": found.sufficient})
    with record.artifacts() as folder:
        (folder / "tables").mkdir()
        rows = pd.DataFrame([asdict(attempt) for attempt in found.attempts])
        rows.to_csv(folder / "tables" / "batch_size.csv", index=False)


def command(name: str, sources: Sequence[str], overrides: Mapping[str, str]) -> str:
    """A command as one would type it.

    >>> command("train", ["digits/cnn"], {"model.lr": "0.1", "data.augmentation": "{}"})
    "darkroom train digits/cnn --model.lr=0.1 '--data.augmentation={}'"
    """
    keys = [f"--{key}={value}" for key, value in overrides.items()]
    return shlex.join(["darkroom", name, *sources, *keys])


def tell_run(record: RunRecord | None) -> None:
    if record is not None:
        print(f"run {record.run_id}  ({record.name})")
