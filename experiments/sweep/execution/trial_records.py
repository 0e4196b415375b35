"""MLflow run and study state of a trial, updated in order."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from ...config.search_space.settings import SweepSettings
from ...errors import RunError
from ...tracking.run import RunRecord
from ...tracking.store import Store
from ..study.study import TrialPlan
from ..study.trials import counted_trials
from .messages import TrialResult

MAX_FIRST_FAILURES = 3  # failures of one kind before anything else happened


@dataclass(frozen=True)
class Sweep:
    """What all trials of a sweep share; `max_epochs` are those of one training."""

    name: str
    sources: Sequence[str]
    overrides: Mapping[str, str]
    settings: SweepSettings
    seed: int
    max_epochs: int
    store: Store | None
    parent: RunRecord | None

    @property
    def steps(self) -> int:
        """After how many of them, epochs or folds, a trial ends at the latest."""
        return self.settings.steps(self.max_epochs)

    @property
    def trial_epochs(self) -> int:
        """Epochs that a trial trains at most, of all of its folds."""
        return self.max_epochs * (self.settings.folds or 1)


def open_record(
    sweep: Sweep, plan: TrialPlan, trial: optuna.Trial, described: str, seed: str, adopted: bool
) -> RunRecord | None:
    """The trial's run: the one it had when it was interrupted, or a new one; None without a store."""
    store, parent = sweep.store, sweep.parent
    if store is None or parent is None:
        return None
    known = trial.user_attrs.get("mlflow_run")
    if known is not None:
        record = store.run(known)
    else:
        tags = {
            "recipe": parent.tags["recipe"],
            "role": plan.role,
            "seed": seed,
            "study": plan.study.study_name,
            "trial": str(trial.number),
            **({"folds": str(sweep.settings.folds)} if sweep.settings.folds else {}),
        }
        # Whoever was killed may have created it, and not been able to say so.
        found = store.child_runs(parent, tags) if adopted else []
        record = found[0] if found else store.start_child(parent, described, tags)
        trial.set_user_attr("mlflow_run", record.run_id)
    if record.status != "RUNNING":
        store.continue_run(record)
    return record


def close(plan: TrialPlan, trial: optuna.Trial, record: RunRecord | None, outcome: TrialResult) -> None:
    """Ends the trial's run with the status it deserves, then tells the study, unless it is to go on."""
    if record is not None:
        _end(record, outcome)
    if outcome.stopped:
        return
    trial.set_user_attr("epochs", outcome.epochs)
    trial.set_user_attr("seconds", outcome.seconds)
    if outcome.error is not None:
        trial.set_user_attr("error", outcome.error[:500])
        trial.set_user_attr("failure", outcome.failure)
        plan.study.tell(trial, state=TrialState.FAIL)
    elif outcome.pruned:
        plan.study.tell(trial, state=TrialState.PRUNED)
    else:
        plan.study.tell(trial, list(outcome.values))
    if record is not None:
        shutil.rmtree(record.checkpoint_folder, ignore_errors=True)


def check_first_failures(plan: TrialPlan, outcome: TrialResult) -> None:
    """Takes it for a mistake in the recipe when the first trials all fail in one way.

    Raises:
        RunError: They did.
    """
    ended = [trial for trial in counted_trials(plan.study) if trial.state.is_finished()]
    alike = all(trial.user_attrs.get("failure") == outcome.failure for trial in ended)
    if alike and len(ended) >= MAX_FIRST_FAILURES:
        raise RunError(f"the first {len(ended)} trials failed alike, the last with: {outcome.error}")


def _end(record: RunRecord, outcome: TrialResult) -> None:
    if outcome.error is not None:
        with record.artifacts() as folder:
            (folder / "traceback.txt").write_text(outcome.traceback or outcome.error)
        record.end("FAILED")
    elif outcome.pruned:
        after = {"pruned_epoch": outcome.pruned_epoch, "pruned_folds": outcome.pruned_folds}
        known = {name: str(value) for name, value in after.items() if value is not None}
        record.set_tags({"pruned": "true", **known})
        record.end("KILLED")
    else:
        record.end("KILLED" if outcome.stopped else "FINISHED")
