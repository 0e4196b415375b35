"""Cross-validation: one child run per fold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from darkroom.lightning_modules.task import build_task

from ..config.folds import fold_selection_note, load_fold
from ..config.identity import keys_that_matter
from ..errors import RequestError
from ..evaluation.fold_summary import FoldSummary, out_of_fold, summarize, summary_metrics
from ..tracking.run import RunRecord
from ..tracking.run_lifecycle import recording
from ..tracking.store import Store, open_store
from ..training.result import Result
from ..training.run import run_name, train
from ..training.setup import prepare
from ..training.trainer import check_trains_here
from .child_runs import exclusive, find_unfinished, fingerprint, finish_child

ROLE = "cross_validation"
DIVIDING = ("data.folds", "data.fold", "data.val_fraction")  # keys that --folds takes the place of


@dataclass(frozen=True)
class Fold:
    """One fold's run.

    Attributes:
        number: As `data.fold` has it, from 0.
        run: As it is recorded once it has finished.
        validated: Images judged for validation.
        trained: Images trained on.
    """

    number: int
    run: RunRecord
    validated: int
    trained: int

    @property
    def metrics(self) -> Mapping[str, float]:
        """The chosen checkpoint's metrics."""
        return self.run.metrics


def cross_validate(sources: Sequence[str], overrides: Mapping[str, str], folds: int) -> None:
    """Trains what is missing of the folds, each tested as `train` does, and tells their mean.

    Args:
        sources: Recipes' names or YAML files, the last wins.
        overrides: The command line's keys.
        folds: How many.

    Raises:
        RequestError: A fold can't be trained, or another process is at it; nothing was started.
        RunError: A fold's training failed.
        Interrupted: Ctrl-C; what is done is kept.
    """
    for key in DIVIDING:
        if key in overrides:
            raise RequestError(
                f"{key} can't be given with --folds, which has each fold be the validation images once; "
                f"for a single one leave --folds out: --data.folds={folds} --data.fold=0"
            )
    store, parent = begin(sources, overrides, folds)
    with exclusive(parent, "cross-validation"), recording(parent, to_continue="the same command again"):
        store.continue_run(parent)
        trained = [run_fold(sources, overrides, folds, fold, store, parent) for fold in range(folds)]
        summaries = summarize(trained)
        record_folds(parent, trained, summaries)
    Console().print(table(trained, summaries))
    print(f"run {parent.run_id}  ({parent.name})")


def begin(sources: Sequence[str], overrides: Mapping[str, str], folds: int) -> tuple[Store, RunRecord]:
    """The run of the cross-validation: the one that this command left unfinished, else a new one.

    Raises:
        RequestError: The folds can't be trained or recorded.
    """
    experiment = load_fold(sources, overrides, folds, 0)
    check_trains_here(experiment.trainer, "each fold")
    if not experiment.mlflow.enabled:
        raise RequestError("the mean over folds is read from their records: mlflow.enabled must be true")
    prepare(experiment)  # which looks at all of the folds
    if (note := fold_selection_note(experiment.trainer)) is not None:
        print(f"note: {note}")
    store = open_store()
    tags = {
        "recipe": experiment.name,
        "role": ROLE,
        "configuration": fingerprint(keys_that_matter(experiment.config, "data.fold")),
    }
    parent = find_unfinished(store, experiment.name, tags)
    if parent is not None:
        done = sum(run.status == "FINISHED" for run in store.child_runs(parent))
        print(f"going on with run {parent.run_id[:8]}: {done} of {folds} folds are done")
    else:
        given = {**overrides, "data.folds": str(folds)}
        name = experiment.mlflow.run_name or run_name(replace(experiment, overrides=given))
        parent = store.start_run(experiment.name, name, tags)
    with parent.artifacts() as folder:
        (folder / "config.yaml").write_text(experiment.to_yaml())
    return store, parent


def run_fold(
    sources: Sequence[str],
    overrides: Mapping[str, str],
    folds: int,
    number: int,
    store: Store,
    parent: RunRecord,
) -> Fold:
    """One fold: as it is recorded, continued where it was killed, else trained."""

    def begin() -> Result:
        experiment = load_fold(sources, overrides, folds, number)
        return train(experiment, store, parent=parent, tags={"role": "fold", "fold": str(number)})

    known = store.child_runs(parent, {"fold": str(number)})
    return read_fold(number, finish_child(known, store, f"fold {number} of 0 to {folds - 1}", begin))


def read_fold(number: int, run: RunRecord) -> Fold:
    """What a finished fold says."""
    images = json.loads(run.read_text("data/facts.json"))["images"]
    return Fold(number, run, images["val"], images["train"])


# What comes of it --------------------------------------------------------------------------------


def record_folds(parent: RunRecord, folds: Sequence[Fold], summaries: Mapping[str, FoldSummary]) -> None:
    """Each metric's mean, deviation and interval, the out-of-fold predictions, and a table of the folds."""
    parent.log_metrics(summary_metrics(summaries))
    with parent.artifacts() as folder:
        for part in ("predictions", "tables"):
            (folder / part).mkdir()
        frame = out_of_fold([fold.run.stored_predictions("val") for fold in folds])
        frame.to_parquet(folder / "predictions" / "val.parquet")
        write_table(folder / "tables" / "folds.csv", folds, list(summaries))


def write_table(path: Path, folds: Sequence[Fold], metrics: Sequence[str]) -> None:
    """A row for each fold: its run, its images, its epoch and its metrics."""
    rows = [
        {
            "fold": fold.number,
            "run": fold.run.run_id,
            "trained": fold.trained,
            "validated": fold.validated,
            **{name: fold.metrics[name] for name in ("best/epoch", *metrics)},
        }
        for fold in folds
    ]
    pd.DataFrame(rows).to_csv(path, index=False)


def table(folds: Sequence[Fold], summaries: Mapping[str, FoldSummary]) -> Table:
    """A line for each fold, and one for the mean with its interval."""
    params = folds[0].run.params
    headline = build_task(int(params["num_classes"]), params["task"]).headline  # type: ignore[arg-type]
    titles = {f"best/{headline}": f"validation {headline}", f"test/{headline}": f"test {headline}"}
    shown = [name for name in titles if name in summaries]
    drawn = Table(title=f"{len(folds)} folds, and the 95 % interval of their mean")
    drawn.add_column("fold")
    drawn.add_column("run")
    for title in ("images", "epoch", *(titles[name] for name in shown)):
        drawn.add_column(title, justify="right")
    for fold in folds:
        epoch, *values = (fold.metrics[name] for name in ("best/epoch", *shown))
        cells = (f"{value:.4f}" for value in values)
        drawn.add_row(str(fold.number), fold.run.run_id[:8], f"{fold.validated:,}", f"{epoch:.0f}", *cells)
    drawn.add_section()
    total = sum(fold.validated for fold in folds)
    means = (summaries[name] for name in shown)
    intervals = (
        f"{each.mean:.4f} ± {each.interval.high - each.mean:.4f}"
        if math.isfinite(each.interval.high)
        else f"{each.mean:.4f} (no interval)"  # of a single fold, and of folds that tie
        for each in means
    )
    drawn.add_row("mean", "", f"{total:,}", "", *intervals)
    return drawn
