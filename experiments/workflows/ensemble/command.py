"""`darkroom ensemble`: several recorded runs as one predictor, fitted on validation and tested once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from ...config.identity import PLACES
from ...config.overrides import check_overrides
from ...reporting.output_path import check_out
from ...tracking.run_lifecycle import recording
from ...tracking.run_selection import select_runs
from ...tracking.store import open_store
from ...training.restore import restore
from .artifacts import describe, record_ensemble
from .blending import as_outcome, check_images, soup, vote
from .combination import COMBINATIONS
from .cross_validated import WHOLE, gather_folds, judge_all_training_images
from .members import SPLITS, best_on_validation, chosen_metric, read_members, trained_runs
from .model_soup import check_soup
from .report import judge, show, write


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Selects, combines, judges, records.

    Raises:
        RequestError: The runs are no ensemble, or a file can't be written; nothing was recorded.
    """
    paths = [check_out(Path(name), (".md", ".csv")) for name in arguments.out]
    check_overrides(overrides, PLACES, "the members are trained")
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
