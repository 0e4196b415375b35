"""`darkroom ensemble`: several recorded runs as one predictor, fitted on validation and tested once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from experiments.calibration import calibrate, record_temperatures
from experiments.compare.selection import select_runs
from experiments.config import Experiment
from experiments.ending import recording
from experiments.ensemble.blend import Blend, as_outcome, check_images, soup, vote
from experiments.ensemble.folds import WHOLE, gather_folds, judge_all_training_images
from experiments.ensemble.members import (
    SPLITS,
    Member,
    best_on_validation,
    chosen_metric,
    in_common,
    read_members,
    trained_runs,
)
from experiments.ensemble.methods import COMBINATIONS
from experiments.ensemble.report import Report, judge, show, write
from experiments.ensemble.soup import check_soup
from experiments.errors import RequestError
from experiments.evaluate import restore
from experiments.identity import PLACES
from experiments.out import check_out
from experiments.predictions import record_predictions
from experiments.record import record_conditions, record_figures, record_predictor
from experiments.thresholds import at_thresholds, record_thresholds
from experiments.tracking import RunRecord, open_store
from lightning_modules.thresholds import choose_thresholds


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Selects, combines, judges, records.

    Raises:
        RequestError: The runs are no ensemble, or a file can't be written; nothing was recorded.
    """
    paths = [check_out(Path(name), (".md", ".csv")) for name in arguments.out]
    foreign = [key for key in overrides if key not in PLACES]
    if foreign:
        raise RequestError(
            f"{foreign[0]} can't be changed: the members are trained. Only where files lie can "
            f"({', '.join(PLACES)})"
        )
    store = open_store()
    runs, notes = trained_runs(select_runs(store, arguments.runs, arguments.where))
    for note in notes:
        print(note)
    members = read_members(*gather_folds(store, runs))
    metric = chosen_metric(arguments.metric, members[0].outcomes["val"])
    if arguments.method == "soup":
        check_soup(members)
    best = best_on_validation(members, metric)
    experiment = restore(best.networks[0], {**overrides, **(WHOLE if best.is_folded else {})})
    if best.is_folded:
        judge_all_training_images(experiment.data)
    check_images(experiment.data, best)
    blend = (
        soup(members, experiment)
        if arguments.method == "soup"
        else vote(members, experiment, COMBINATIONS[arguments.method](members, metric), overrides)
    )
    said = {split: as_outcome(blend.predictions[split], experiment.data, split) for split in SPLITS}
    report = judge(members, said, blend.weights, arguments.method, metric)
    name = f"{arguments.method} of {len(members)}"
    record = store.start_run(experiment.name, name, {"recipe": experiment.name, "role": "ensemble"})
    with recording(record, to_continue="the same command again"):
        describe(record, experiment, members, arguments.method, metric)
        record_ensemble(record, experiment, blend, report)
    console = Console()
    show(report, console)
    for path in paths:
        write(report, path)
        print(f"written: {path}")
    console.print(f"run {record.run_id}  ({record.name})", highlight=False)


def describe(
    record: RunRecord, experiment: Experiment, members: Sequence[Member], method: str, metric: str
) -> None:
    """Tells of whom the ensemble is, and as its params what the members have in common."""
    ids = [member.run.run_id for member in members]
    record.set_tags({"members": ",".join(ids)})
    sizes = [member.num_parameters for member in members]
    own: dict[str, object] = {
        "name": experiment.name,
        "num_parameters": sizes[0] if method == "soup" else sum(sizes),
        "ensemble.method": method,
        "ensemble.members": " ".join(run_id[:8] for run_id in ids),
    }
    if method == "greedy":
        own["ensemble.metric"] = metric
    record.log_params({**in_common([member.params for member in members]), **own})


def record_ensemble(record: RunRecord, experiment: Experiment, blend: Blend, report: Report) -> None:
    """What any run leaves behind, of the ensemble; validation's metrics stand as `best/...`."""
    data, predictions = experiment.data, blend.predictions
    metrics, thresholds = dict(blend.metrics), None
    if data.task == "multilabel":
        chosen = choose_thresholds(predictions["val"].probabilities, predictions["val"].targets)
        thresholds = [float(value) for value in chosen]
        metrics |= at_thresholds(predictions["test"], thresholds, "test")
    calibration = calibrate(predictions["val"], predictions["test"])
    metrics |= calibration.metrics
    record.log_metrics({name.replace("val/", "best/"): value for name, value in metrics.items()})
    record.log_metrics({f"gain/{report.metric}": report.gain})
    with record.artifacts() as folder:
        record_conditions(record, folder, data)
        for split in SPLITS:
            record_predictions(folder, split, predictions[split], data, thresholds)
        if thresholds is not None:
            record_thresholds(folder, thresholds, data.class_names)
        record_temperatures(folder, calibration.temperatures, data.class_names)
        record_figures(folder, data, "test", predictions["test"], {}, None, thresholds, calibration)
        write(report, folder / "tables" / "members.csv")
        write(report, folder / "ensemble.md")
    record_predictor(record, data, blend.predictor, thresholds)
