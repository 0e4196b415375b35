"""The evaluate command: recorded metrics beside recomputed ones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from darkroom.lightning_modules.metrics.names import METRIC_NAMES, TUNED_METRICS

from ..errors import RequestError
from ..evaluation.calibration import CALIBRATION_METRICS, arrays, judge
from ..evaluation.temperature_scaling import fit_temperatures
from ..evaluation.thresholds import at_thresholds
from ..tracking.prediction_artifacts import read_outcome, recorded_thresholds
from ..tracking.provenance_diff import check_not_trained_on, repairs_told
from ..tracking.run import RunRecord
from ..tracking.store import open_store
from ..training.loop import evaluate
from ..training.restore import restore
from ..training.result import print_result
from ..training.run import train
from .evaluate_untrained import load_untrained


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Prints what the run recorded beside what its checkpoint gives now."""
    if arguments.untrained:
        if arguments.split is not None:
            raise RequestError("--untrained judges validation and test images, each once: leave out --split")
        experiment = load_untrained(arguments.queries, overrides)
        print_result(train(experiment, open_store() if experiment.mlflow.enabled else None))
        return
    if len(arguments.queries) > 1:
        raise RequestError("evaluate takes one run; several experiments go with --untrained")
    arguments.split = arguments.split or "test"
    record = open_store().find_run(arguments.queries[0])
    experiment = restore(record, overrides)
    if arguments.split not in experiment.data.splits:
        there = " and ".join(experiment.data.splits)
        raise RequestError(f"the data has no {arguments.split} images; it has {there} (--split)")
    if not any(key.startswith("data") for key in overrides):
        check_not_trained_on(record, experiment.data, arguments.split)
    for line in repairs_told(record):
        print(f"note: {line}")
    evaluation = evaluate(experiment, [arguments.split])
    metrics, judged = evaluation.metrics, evaluation.predictions[arguments.split]
    if experiment.model.task.name == "multilabel" and arguments.split == "test":
        thresholds = recorded_thresholds(record)
        metrics |= at_thresholds(judged, thresholds, "test")
    if arguments.split == "test":
        temperatures = recorded_temperatures(record)
        metrics |= judge(*arrays(judged), temperatures, judged.ranking.cpu().numpy()).metrics
    Console().print(comparison(record, metrics, arguments.split))


def recorded_temperatures(record: RunRecord) -> list[float | None]:
    """Fits temperatures to a run's own validation, also where other images are judged."""
    if "best/loss" not in record.metrics:
        return [None]
    validation = read_outcome(record, "val")
    return fit_temperatures(validation.targets, validation.probabilities)


def comparison(record: RunRecord, metrics: Mapping[str, float], split: str) -> Table:
    """Recorded and present values side by side."""
    stage = "best" if split == "val" else split  # the chosen checkpoint's metrics on validation
    table = Table("metric", title=f"run {record.run_id[:8]} ({record.name}) on {split}")
    table.add_column("recorded", justify="right")
    table.add_column("now", justify="right")
    table.add_column("difference", justify="right")
    names = [(f"{split}/{name}", f"{stage}/{name}") for name in (*METRIC_NAMES, *TUNED_METRICS)]
    names += [(f"calibration/{name}", f"calibration/{name}") for name in CALIBRATION_METRICS]
    for name, recorded_name in names:
        if name not in metrics:
            continue
        value, before = metrics[name], record.metrics.get(recorded_name)
        recorded = ("-", "") if before is None else (f"{before:.6f}", f"{value - before:+.1e}")
        table.add_row(name, recorded[0], f"{value:.6f}", recorded[1])
    return table
