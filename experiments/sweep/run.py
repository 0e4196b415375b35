"""A sweep, in order: search, confirm, train the winner, test it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import yaml
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from rich.console import Console

from ..config.experiment import Experiment, load_experiment
from ..config.search_space.space import overrides
from ..errors import RequestError, RunError
from ..tracking.run import RunRecord
from ..tracking.run_lifecycle import recording
from ..tracking.store import Store, open_store
from ..training.result import Result, print_result
from ..training.resume import go_on
from ..training.run import train
from .execution.controller import Controller
from .execution.resources import Slot, allocate_slots
from .execution.trial_records import Sweep
from .report.leaderboard import leaderboard, savings
from .report.live_display import Display
from .report.report import write_report
from .setup import prepare_sweep
from .study.confirmation import (
    ConfirmationPlan,
    Confirmed,
    confirmation_frame,
    confirmation_table,
    confirmed,
    optimism,
    told_apart,
)
from .study.storage import DEFAULT_STORAGE, Leases, open_leases, open_storage
from .study.study import SearchPlan, grid_trials, is_done, open_study
from .study.trials import best_trial, counted_trials, describe

REFRESH_SECONDS = 20.0  # between two looks of the sweep's run in MLflow, while it lasts


def run(arguments: argparse.Namespace, changed: Mapping[str, str]) -> None:
    """Does what is missing of the sweep, and says so when nothing is."""
    experiment = load_experiment(arguments.experiments, changed, check_space=True)
    settings = experiment.sweep
    if settings is None or not settings.space:
        raise RequestError(f"{experiment.name} has no sweep.space: name the keys to vary, with their ranges")
    slots = allocate_slots(experiment, arguments.workers, arguments.trials_per_gpu)
    for note in prepare_sweep(experiment, arguments.experiments, changed):
        print(f"note: {note}")
    store = open_store() if experiment.mlflow.enabled else None
    storage = open_storage(arguments.storage or DEFAULT_STORAGE)
    name = arguments.study or experiment.name
    leases = open_leases(storage, name)
    with leases.claiming():
        study = open_study(experiment, name, storage, arguments.extend, arguments.any_version)
        parent = parent_run(experiment, study, store)
    sweep = Sweep(
        name=name,
        sources=arguments.experiments,
        overrides=changed,
        settings=settings,
        seed=experiment.seed,
        max_epochs=experiment.trainer.max_epochs,
        store=store,
        parent=parent,
    )
    trials = arguments.trials or settings.trials
    if settings.sampler == "grid":
        trials = min(trials, grid_trials(study, settings))
    console = Console()
    with recording(parent, to_continue="the same command again"):
        search(sweep, study, leases, slots, trials)
        console.print(leaderboard(study, settings))
        console.print(str(savings(study, sweep.trial_epochs)), highlight=False)
        best = best_trial(study, settings)
        if best is None:
            raise RunError("no trial was completed: there is no best configuration to train")
        if settings.confirm is not None:
            results = confirm(sweep, study, storage, slots)
            console.print(confirmation_table(results, settings))
            for line in told_apart(results, settings, store):
                console.print(line, highlight=False)
            flattery = optimism(results, best, settings)
            if flattery is not None:
                told = f"the search's best value was {flattery:+.4f} too good, by its mean on fresh seeds"
                console.print(told, highlight=False)
            best = results[0].trial
            record_confirmation(sweep, results, flattery)
        if leases.take("winner") is None:
            print("another process trains the winner; its result will stand in the sweep's run")
            return
        result = train_winner(sweep, study, best)
        record_winner(sweep, study, best, result)
        leases.release("winner")
    print_result(result)
    print(f"the winner as a recipe: {write_recipe(sweep, best)}")
    if store is not None:
        print("look at it: darkroom ui")


def parent_run(experiment: Experiment, study: optuna.Study, store: Store | None) -> RunRecord | None:
    """The MLflow run under which all trials stand: the study's own, created with it.

    Raises:
        RequestError: The store no longer has it.
    """
    if store is None:
        return None
    known = study.user_attrs.get("mlflow_run")
    if known is not None:
        found = store.runs_where(f"attributes.run_id = '{known}'")
        if not found:
            raise RequestError(
                f"the study {study.study_name}'s run {known} is not in the store {store.uri}: put the store "
                "back, or begin another study with --study NAME"
            )
        store.continue_run(found[0])
        return found[0]
    tags = {"recipe": experiment.name, "role": "sweep", "study": study.study_name}
    parent = store.start_run(experiment.name, f"sweep {study.study_name}", tags)
    study.set_user_attr("mlflow_run", parent.run_id)
    with parent.artifacts() as folder:
        (folder / "config.yaml").write_text(experiment.to_yaml())
    return parent


def search(sweep: Sweep, study: optuna.Study, leases: Leases, slots: Sequence[Slot], trials: int) -> None:
    """The trials of the search that are missing."""
    plan = SearchPlan(study, sweep.settings, sweep.seed, trials)
    if done := sum(trial.state.is_finished() for trial in counted_trials(study)):
        print(f"study {sweep.name}: {done} of {trials} trials are done")
    if is_done(plan):
        return
    shown_at = time.monotonic()

    def refresh() -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= REFRESH_SECONDS:
            record_search(sweep, study, live=True)
            shown_at = time.monotonic()

    with Display() as display:
        Controller(sweep, plan, leases, slots, display, refresh).run()
    record_search(sweep, study)


def confirm(sweep: Sweep, study: optuna.Study, storage: RDBStorage, slots: Sequence[Slot]) -> list[Confirmed]:
    """The best configurations on fresh seeds, best mean first."""
    leases = open_leases(storage, f"{sweep.name}/confirmation")
    with leases.claiming():
        plan = ConfirmationPlan(study, storage, sweep.settings, sweep.seed)
    if not is_done(plan):
        with Display() as display:
            Controller(sweep, plan, leases, slots, display).run()
    results = confirmed(plan)
    if not results:
        raise RunError("no configuration could be trained on fresh seeds; the trials' runs say why")
    return results


def train_winner(sweep: Sweep, study: optuna.Study, best: FrozenTrial) -> Result:
    """Trains a configuration with the recipe's own seed and tests it, unless that is done."""
    known = study.user_attrs.get(f"winner_of_{best.number}")
    if known is not None and sweep.store is not None:
        record = sweep.store.run(known)
        if record.status == "FINISHED":
            print(f"nothing is left to do; trial {best.number} was trained and tested before")
            return Result(record.metrics, int(record.metrics["best/epoch"]), record)
        if (record.checkpoint_folder / "last.ckpt").is_file():
            return go_on(record, sweep.store)
    print(f"training the winner, of trial {best.number}, with seed {sweep.seed}")
    experiment = load_experiment(sweep.sources, {**sweep.overrides, **overrides(best.params, sweep.settings)})
    name = f"winner {describe(best.params)}"
    return train(
        replace(experiment, mlflow=replace(experiment.mlflow, run_name=name)),
        sweep.store,
        parent=sweep.parent,
        tags={"role": "winner", "trial": str(best.number), "study": sweep.name},
        started=lambda record: study.set_user_attr(f"winner_of_{best.number}", record.run_id),
    )


# What the sweep's own run shows ------------------------------------------------------------------


def record_search(sweep: Sweep, study: optuna.Study, live: bool = False) -> None:
    """Figures, tables and the budget spent; while the search lasts only what is quickly drawn."""
    if sweep.parent is None:
        return
    trials = counted_trials(study)
    best = best_trial(study, sweep.settings)
    facts = {
        "trials": len(trials),
        "epochs": sum(trial.user_attrs.get("epochs", 0) for trial in trials),
        "seconds": round(sum(trial.user_attrs.get("seconds", 0.0) for trial in trials), 1),
        **({"best_trial": best.number} if best else {}),
    }
    sweep.parent.set_tags({key: str(value) for key, value in facts.items()})
    if best is not None:
        sweep.parent.log_metrics({f"best/{sweep.settings.metric}": best.values[0]}, step=len(trials))
    with sweep.parent.artifacts() as folder:
        write_report(study, sweep.settings, folder, sweep.trial_epochs, live=live)


def record_confirmation(sweep: Sweep, results: Sequence[Confirmed], flattery: float | None) -> None:
    """The means on fresh seeds, and by how much the search's best value was too good."""
    if sweep.parent is None:
        return
    seeds = json.dumps({each.trial.number: len(each.values) for each in results})
    if sweep.parent.tags.get("confirmed_seeds") == seeds:
        return  # the same trials; more of the search may have found others
    metrics = {f"confirmed/{sweep.settings.metric}": results[0].mean}
    if flattery is not None:
        metrics["confirmed/optimism"] = flattery
    sweep.parent.log_metrics(metrics)
    with sweep.parent.artifacts() as folder:
        (folder / "tables").mkdir()
        confirmation_frame(results).to_csv(folder / "tables" / "confirmation.csv", index=False)
    sweep.parent.set_tags({"confirmed_trial": str(results[0].trial.number), "confirmed_seeds": seeds})


def record_winner(sweep: Sweep, study: optuna.Study, best: FrozenTrial, result: Result) -> None:
    """The winner's test metrics, and its configuration as a recipe."""
    if sweep.parent is None or result.record is None:
        return
    if sweep.parent.tags.get("winner_run") == result.record.run_id:
        return
    sweep.parent.log_metrics(result.metrics)
    with sweep.parent.artifacts() as folder:
        (folder / "best.yaml").write_text(winning_recipe(sweep, best))
    sweep.parent.set_tags({"winner_trial": str(best.number), "winner_run": result.record.run_id})


def write_recipe(sweep: Sweep, best: FrozenTrial) -> Path:
    """Writes the winning configuration to a file that `darkroom train` takes."""
    path = Path(f"{sweep.name.replace('/', '-')}-best.yaml")
    path.write_text(winning_recipe(sweep, best))
    return path


def winning_recipe(sweep: Sweep, best: FrozenTrial) -> str:
    """The configuration without its search, and without a claim that was made for another."""
    experiment = load_experiment(sweep.sources, {**sweep.overrides, **overrides(best.params, sweep.settings)})
    config = {key: value for key, value in experiment.config.items() if key not in ("sweep", "claim")}
    return f"# The winner of the sweep {sweep.name}: its trial {best.number}.\n" + yaml.safe_dump(
        config, sort_keys=False
    )
