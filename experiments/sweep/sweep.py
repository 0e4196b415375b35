"""`darkroom sweep`: search, then train the best configuration once more and test it."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from datamodules.randomness import derive_seed
from experiments.callbacks import EpochRecorder, ProgressLine
from experiments.config import Experiment, load_experiment
from experiments.errors import RequestError, RunError
from experiments.record import record_predictions, record_start
from experiments.sweep.pruning import Pruning
from experiments.sweep.space import SweepSettings
from experiments.sweep.study import DEFAULT_STORAGE, adopt_or_ask, finished_trials, open_study, suggest
from experiments.tracking import RunRecord, Store, StoreError, open_store
from experiments.train import (
    Result,
    chosen_epoch,
    fit,
    prepare,
    print_result,
    recording,
    resume,
    start_record,
    train,
    working_folder,
)

MAX_FIRST_FAILURES = 3  # failures before the first success that are taken for a mistake


@dataclass(frozen=True)
class Sweep:
    """What all trials of a sweep share."""

    sources: Sequence[str]
    overrides: Mapping[str, str]
    settings: SweepSettings
    study: optuna.Study
    seed: int
    store: Store | None
    parent: RunRecord | None

    def experiment(self, overrides: Mapping[str, str]) -> Experiment:
        """The recipe with a trial's values."""
        return load_experiment(self.sources, {**self.overrides, **overrides})


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Runs the trials that are missing, then the winner; says so when nothing is."""
    with claim_study(arguments):
        sweep = open_sweep(arguments, overrides)
        trials = arguments.trials or sweep.settings.trials
        done = len(finished_trials(sweep.study))
        if done:
            print(f"study {sweep.study.study_name}: {done} of {trials} trials are done")
        with recording(sweep.parent, to_continue="the same command again"):
            for number in range(done, trials):
                run_trial(sweep, label=f"trial {number + 1}/{trials}  ")
            Console().print(leaderboard(sweep))
            result = train_winner(sweep)
            record_winner(sweep, result)
    print_result(result)
    if sweep.store is not None:
        print("look at it: darkroom ui")


@contextlib.contextmanager
def claim_study(arguments: argparse.Namespace) -> Iterator[None]:
    """Holds the study for this process, until it ends or dies: then its running trials are orphans.

    Raises:
        RequestError: Another process holds it.
    """
    if arguments.trials is not None and arguments.trials < 1:
        raise RequestError(f"--trials must be at least 1, got {arguments.trials}")
    name = (arguments.study or "-".join(arguments.experiments)).replace("/", "-")
    try:
        Path("mlruns").mkdir(exist_ok=True)
    except OSError as error:
        raise RequestError(f"the folder {Path('mlruns').resolve()} can't be made: {error}") from error
    lock = FileLock(Path("mlruns") / f".sweep-{name}.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise RequestError(f"another process in this folder is sweeping {name}; wait for it") from None


def open_sweep(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> Sweep:
    """Everything that can be refused before the first trial."""
    experiment = load_experiment(arguments.experiments, overrides, check_space=True)
    if experiment.sweep is None or not experiment.sweep.space:
        raise RequestError(f"{experiment.name} has no sweep.space: name the keys to vary, with their ranges")
    if experiment.data.val_fraction == 0:
        raise RequestError("a sweep is judged on validation images: data.val_fraction must be above 0")
    prepare(experiment)
    store = open_store() if experiment.mlflow.enabled else None
    study = open_study(experiment, arguments.study or experiment.name, arguments.storage or DEFAULT_STORAGE)
    return Sweep(
        sources=arguments.experiments,
        overrides=overrides,
        settings=experiment.sweep,
        study=study,
        seed=experiment.seed,
        store=store,
        parent=parent_run(experiment, study, store),
    )


def parent_run(experiment: Experiment, study: optuna.Study, store: Store | None) -> RunRecord | None:
    """The MLflow run under which all trials stand: the study's own, created with it."""
    if store is None:
        return None
    known = study.user_attrs.get("mlflow_run")
    if known is not None:
        parent = store.find_run(known)
        store.continue_run(parent)
        return parent
    tags = {"recipe": experiment.name, "role": "sweep", "sweep": study.study_name}
    parent = store.start_run(experiment.name, f"sweep {study.study_name}", tags)
    study.set_user_attr("mlflow_run", parent.run_id)
    with parent.artifacts() as folder:
        (folder / "config.yaml").write_text(experiment.to_yaml())
    return parent


def run_trial(sweep: Sweep, label: str) -> None:
    """Trains one configuration on train, judges it on validation, and tells the study.

    A trial that is interrupted stays running in the study, and the next sweep takes it up again.

    Raises:
        RunError: The store failed, or the first trials all did.
    """
    trial = adopt_or_ask(sweep.study)
    values = suggest(trial, sweep.settings)
    described = _describe(values)
    try:
        value, pruned_epoch = train_trial(sweep, trial, values, described, label)
    except StoreError:
        raise
    except Exception as error:
        sweep.study.tell(trial, state=TrialState.FAIL)
        _tell(f"{label}failed: {error}  ({described})")
        trials = sweep.study.get_trials(deepcopy=False)
        if len(trials) >= MAX_FIRST_FAILURES and all(each.state is TrialState.FAIL for each in trials):
            raise RunError(f"the first {len(trials)} trials failed, the last with: {error}") from error
        return
    outcome = f"{label}{sweep.settings.metric} {value:.4f}"
    if pruned_epoch is None:
        sweep.study.tell(trial, value)
        _tell(f"{outcome}  ({described})")
    else:
        sweep.study.tell(trial, state=TrialState.PRUNED)
        _tell(f"{outcome}  pruned after epoch {pruned_epoch}  ({described})")


def train_trial(
    sweep: Sweep, trial: optuna.Trial, values: Mapping[str, str], described: str, label: str
) -> tuple[float, int | None]:
    """One trial's run: its metric at the chosen epoch, and the epoch after which it was pruned."""
    experiment = sweep.experiment({**values, "seed": str(derive_seed(sweep.seed, trial.number) % 2**31)})
    experiment = replace(experiment, mlflow=replace(experiment.mlflow, run_name=described))
    prepare(experiment)
    record = trial_record(sweep, trial, experiment)
    pruning = Pruning(trial, sweep.settings.metric)
    with recording(record, to_continue="the same command again"), working_folder(record) as folder:
        recorder = EpochRecorder(record, experiment.trainer.monitor, continued=True)
        callbacks = [pruning, ProgressLine(label, transient=True)]
        resumed = (folder / "last.ckpt").is_file()
        best_epoch = fit(experiment, recorder, folder, resumed=resumed, callbacks=callbacks)
        value = recorder.history[best_epoch - 1][sweep.settings.metric]
        if record is not None:
            record_trial(record, experiment, recorder, best_epoch)
            if pruning.pruned_epoch is not None:
                record.set_tags({"pruned": "true", "pruned_epoch": str(pruning.pruned_epoch)})
                record.end("KILLED")
    return value, pruning.pruned_epoch


def trial_record(sweep: Sweep, trial: optuna.Trial, experiment: Experiment) -> RunRecord | None:
    """The trial's run: a new one, or the one it had when it was interrupted."""
    known = trial.user_attrs.get("mlflow_run")
    if known is not None and sweep.store is not None:
        record = sweep.store.find_run(known)
        sweep.store.continue_run(record)
        record_start(record, experiment)  # may have been cut short
        return record
    return start_record(
        experiment,
        sweep.store,
        parent=sweep.parent,
        tags={"role": "trial", "trial": str(trial.number), "sweep": sweep.study.study_name},
        started=lambda record: trial.set_user_attr("mlflow_run", record.run_id),
    )


def record_trial(record: RunRecord, experiment: Experiment, recorder: EpochRecorder, best_epoch: int) -> None:
    """The chosen epoch's validation metrics and predictions."""
    record.log_metrics(chosen_epoch(experiment, recorder, best_epoch), step=best_epoch)
    with record.artifacts() as folder:
        record_predictions(folder, "val", experiment.model.predictions["val"], experiment.data)


def train_winner(sweep: Sweep) -> Result:
    """Trains the best configuration with the recipe's own seed and tests it, unless that is done."""
    try:
        best = sweep.study.best_trial
    except ValueError as error:
        raise RunError("no trial was completed: there is no best configuration to train") from error
    known = sweep.study.user_attrs.get(f"winner_of_{best.number}")
    if known is not None and sweep.store is not None:
        record = sweep.store.find_run(known)
        if record.status == "FINISHED":
            print(f"nothing is left to do; trial {best.number} was trained and tested before")
            return Result(record.metrics, int(record.metrics["best/epoch"]), record)
        if (record.checkpoint_folder / "last.ckpt").is_file():
            return resume(known)
    print(f"training the best configuration, of trial {best.number}, with seed {sweep.seed}")
    values = {key: str(value) for key, value in best.params.items()}
    experiment = sweep.experiment(values)
    experiment = replace(
        experiment, mlflow=replace(experiment.mlflow, run_name=f"winner {_describe(values)}")
    )
    return train(
        experiment,
        sweep.store,
        parent=sweep.parent,
        tags={"role": "winner", "trial": str(best.number), "sweep": sweep.study.study_name},
        started=lambda record: sweep.study.set_user_attr(f"winner_of_{best.number}", record.run_id),
    )


def record_winner(sweep: Sweep, result: Result) -> None:
    """Puts the best trial and the winner's test metrics on the parent run, once."""
    if sweep.parent is None or result.run is None:
        return
    if sweep.parent.tags.get("winner_run") == result.run.run_id:
        return
    best = sweep.study.best_trial
    sweep.parent.log_metrics({**result.metrics, f"best/{sweep.settings.metric}": best.values[0]})
    sweep.parent.set_tags({"best_trial": str(best.number), "winner_run": result.run.run_id})
    with sweep.parent.artifacts() as folder:
        (folder / "tables").mkdir()
        sweep.study.trials_dataframe().to_csv(folder / "tables" / "trials.csv", index=False)


def leaderboard(sweep: Sweep, rows: int = 10) -> Table:
    """The best trials with their values, then how many were pruned or failed."""
    trials = finished_trials(sweep.study)
    keys = list(sweep.settings.space)
    pruned = sum(trial.state is TrialState.PRUNED for trial in trials)
    failed = sum(trial.state is TrialState.FAIL for trial in trials)
    caption = f"{len(trials)} trials, {pruned} pruned, {failed} failed"
    table = Table("trial", sweep.settings.metric, *keys, title=sweep.study.study_name, caption=caption)
    for trial in trials[:rows]:
        table.add_row(
            str(trial.number), _outcome(trial), *(_short(trial.params.get(key, "")) for key in keys)
        )
    return table


def _tell(line: str) -> None:
    """Prints over a terminal's transient line."""
    print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)


def _outcome(trial: FrozenTrial) -> str:
    if trial.state is TrialState.COMPLETE:
        return f"{trial.values[0]:.4f}"
    last = trial.intermediate_values[trial.last_step] if trial.last_step is not None else math.nan
    return f"{last:.4f} {trial.state.name.lower()}"


def _describe(values: Mapping[str, str]) -> str:
    """The varied keys with their values, in short: `lr=0.01 dropout=0.2`."""
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in values.items())


def _short(value: object) -> str:
    try:
        return f"{float(str(value)):.3g}"
    except ValueError:
        return str(value)
