"""`darkroom evaluate`: a recorded run's metrics, computed again or on other data; or untrained weights'."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from experiments.calibration import CALIBRATION_METRICS, arrays, judge
from experiments.checkpoints import load_weights
from experiments.conditions import check_not_trained_on, repairs_told
from experiments.config import Experiment
from experiments.errors import RequestError
from experiments.prediction_store import read_outcome
from experiments.recorded_data import check_same_classes, parse_recorded
from experiments.temperature import fit_temperatures
from experiments.thresholds import at_thresholds, recorded_thresholds
from experiments.tracking import RunRecord, open_store
from experiments.train import evaluate, prepare, print_result, train
from experiments.untrained import load_untrained
from lightning_modules.metrics import METRIC_NAMES, TUNED_METRICS


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
    metrics = evaluate(experiment, [arguments.split])
    if experiment.model.task.name == "multilabel" and arguments.split == "test":
        thresholds = recorded_thresholds(record)
        metrics |= at_thresholds(experiment.model.predictions["test"], thresholds, "test")
    if arguments.split == "test":
        temperatures = recorded_temperatures(record)
        judged = experiment.model.predictions["test"]
        metrics |= judge(*arrays(judged), temperatures, judged.ranking.cpu().numpy()).metrics
    Console().print(comparison(record, metrics, arguments.split))


def restore(record: RunRecord, overrides: Mapping[str, str]) -> Experiment:
    """A recorded run's experiment with the chosen checkpoint's weights and its normalisation.

    Args:
        record: A run that has finished.
        overrides: Keys of the data, to judge on other images of the same classes.

    Raises:
        RequestError: The run has no checkpoint, the data is not to be had, or has other classes, or images
            of a size that the network can't take.
    """
    foreign = [key for key in overrides if not key.startswith(("data", "trainer"))]
    if foreign:
        raise RequestError(
            f"{foreign[0]} can't be changed: the network is trained. Keys of data and trainer can"
        )
    unweighted = {"data.sample_weights": "null", **overrides}  # which are of training alone
    experiment = parse_recorded(record, unweighted)
    experiment.model.start_from_scratch()  # the checkpoint's weights follow
    checkpoint = record.download("checkpoints/best.ckpt")
    facts = json.loads(record.read_text("data/facts.json"))
    try:
        class_names = list(experiment.data.class_names)
    except (ValueError, OSError) as error:  # of files that are not there any more
        raise RequestError(str(error)) from error
    check_same_classes(record, class_names)
    prepare(experiment)
    experiment.data.normalize_with(facts["pixel_mean"], facts["pixel_std"])
    # The loss is the run's own, also where other images would weigh its classes otherwise.
    experiment.model.weigh_classes(facts["class_counts"]["train"], facts["images"]["train"])
    try:
        load_weights(experiment.model, checkpoint)
    except RuntimeError as error:
        shapes = facts["image_shape"], experiment.data.image_shape
        trained_on, these = ("x".join(map(str, shape)) for shape in shapes)
        raise RequestError(
            f"the run's network was trained on images of {trained_on}, and its weights do not fit one for "
            f"{these}: leave out what changes the images' size"
        ) from error
    return experiment


def recorded_temperatures(record: RunRecord) -> list[float | None]:
    """Those that a run's own validation tells, also where other images are judged."""
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
