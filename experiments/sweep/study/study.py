"""Opens an Optuna study; claims and adopts trials."""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.seeding import derive_seed

from ...config.experiment import Experiment
from ...config.identity import INERT
from ...config.keys import flatten
from ...config.search_space.points import grid_points
from ...config.search_space.settings import SweepSettings, directions
from ...config.search_space.space import is_feasible, overrides, starting_points, suggest
from ...errors import RequestError, RunError
from ...tracking.record_version import RECORD_VERSION, RECORD_VERSION_TAG, is_outdated, version_label
from .samplers_and_pruners import build_pruner, build_sampler, should_prune
from .storage import Leases, Sightings
from .trials import FOLD_VALUES, counted_trials

MAX_REFUSED = 1000  # proposals in a row that a constraint may refuse
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message="The reported value is ignored because")  # as it should be


class TrialPlan(Protocol):
    """What the trials of a study are: the search itself, or the confirmation of its best."""

    study: optuna.Study
    total: int
    role: str

    def draw(self, trial: optuna.Trial) -> bool:
        """Has the study propose the trial's values; False where a constraint refuses them."""

    def overrides(self, trial: FrozenTrial) -> dict[str, str]:
        """The trial's values and seed, as configuration overrides."""

    def report(self, trial: optuna.Trial, step: int, value: float) -> bool:
        """Keeps the metric after an epoch, or of a fold; whether the trial is hopeless.

        Args:
            step: Epochs, or folds, that are trained.
        """


class SearchPlan:
    """The study's own trials: proposed by the sampler, stopped by the pruner."""

    role = "trial"

    def __init__(self, study: optuna.Study, settings: SweepSettings, seed: int, total: int) -> None:
        self.study = study
        self.settings = settings
        self.seed = seed
        self.total = total

    def draw(self, trial: optuna.Trial) -> bool:
        params = suggest(trial, self.settings)
        # A point that waits since before the space was narrowed may lie outside.
        inside = all(self.settings.space[name].takes(value) for name, value in params.items())
        return inside and is_feasible(params, self.settings)

    def overrides(self, trial: FrozenTrial) -> dict[str, str]:
        seed = derive_seed(self.seed, trial.number) % 2**31
        return {**overrides(trial.params, self.settings), "seed": str(seed)}

    def report(self, trial: optuna.Trial, step: int, value: float) -> bool:
        if self.settings.folds is not None:
            value = self._comparable(trial, step, value)
        if not self.settings.objectives:
            trial.report(value, step)
            return bool(trial.should_prune())
        # With several objectives Optuna takes no reports: the curves stand in an attribute.
        curve = {**trial.user_attrs.get("curve", {}), str(step): value}
        trial.set_user_attr("curve", curve)
        trials = self.study.get_trials(deepcopy=False)
        direction = self.settings.direction
        return should_prune(self.study.pruner, trials, trials[trial.number], direction)

    def _comparable(self, trial: optuna.Trial, step: int, value: float) -> float:
        """What is held against other trials after a fold: the mean so far.

        But Wilcoxon's test pairs what two trials had in the same fold.
        """
        values = {**trial.user_attrs.get(FOLD_VALUES, {}), str(step): value}
        trial.set_user_attr(FOLD_VALUES, values)
        if self.settings.pruner == "wilcoxon":
            return value
        return statistics.fmean(values[str(each)] for each in range(1, step + 1))


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that is now this process's, and what keeps it so."""

    trial: optuna.Trial
    lease: int
    adopted: bool


def open_study(
    experiment: Experiment,
    name: str,
    storage: RDBStorage,
    extend: bool = False,
    any_version: bool = False,
) -> optuna.Study:
    """The search's study of this name, continued if it is there. To be called while claiming.

    Raises:
        RequestError: The study searched another space, trained another recipe or on other images, or was
            begun before repairs that change numbers, and `any_version` does not ask to go on with it.
    """
    settings = experiment.sweep
    assert settings is not None  # the command has looked
    study = optuna.create_study(
        study_name=name, storage=storage, directions=directions(settings), load_if_exists=True
    )
    _check_images(study, experiment.data)
    asked = json.loads(json.dumps(_identity(experiment)))
    known = study.user_attrs.get("experiment")
    if known is not None:
        if not any_version:
            _check_version(study)
        _check_extension(name, known, asked, extend)
    else:
        study.set_user_attr(RECORD_VERSION_TAG, str(RECORD_VERSION))
    if known is None or changed_keys(known, asked):
        for point in starting_points(settings, flatten(experiment.config)):
            study.enqueue_trial(point, skip_if_exists=True)
        study.set_user_attr("experiment", asked)  # last: a kill before it only enqueues again
    study.sampler = build_sampler(settings, derive_seed(experiment.seed, len(study.trials)) % 2**32)
    study.pruner = build_pruner(settings, settings.steps(experiment.trainer.max_epochs))
    return study


def _check_version(study: optuna.Study) -> None:
    """Refuses to mix trials of different record versions."""
    label = version_label(study.user_attrs)
    if is_outdated(study.user_attrs):
        raise RequestError(
            f"the study {study.study_name} was begun at record version {label}, the present one is "
            f"{RECORD_VERSION}: repairs between them change numbers, so its trials and new ones can't be "
            "compared. Begin another with --study NAME, or go on all the same with --any-version"
        )


def grid_trials(study: optuna.Study, settings: SweepSettings) -> int:
    """How many trials a grid takes to its end: those that began, and its points that none of them has.

    Of an extended study some may have begun outside the grid as it is now.
    """
    begun = [trial.params for trial in counted_trials(study)]
    points = grid_points(settings.space, settings.constraints)
    return len(begun) + sum(point not in begun for point in points)


def claim(
    plan: TrialPlan, leases: Leases, mine: Collection[int], sightings: Sightings
) -> ClaimedTrial | None:
    """A trial whose owner died, in place, else a new one while there are to be more; else None.

    Adopted, a trial keeps its number, its values and what it has reported. One process at a time does
    this, so that the number of trials is exact.
    """
    study = plan.study
    with leases.claiming():
        trials = study.get_trials(deepcopy=False)
        for frozen in trials:
            if frozen.state is TrialState.RUNNING and frozen.number not in mine:
                lease = leases.take(lease_name(frozen.number))
                if lease is None:
                    sightings.forget(frozen.number)
                elif not sightings.ripe(frozen.number):
                    leases.release(lease_name(frozen.number))
                else:
                    trial = optuna.trial.Trial(study, frozen._trial_id)
                    if _is_to_run(plan, trial):
                        return ClaimedTrial(trial, lease, adopted=True)
                    leases.release(lease_name(frozen.number))
        started = len(counted_trials(study))
        for _ in range(MAX_REFUSED if started < plan.total else 0):
            trial = study.ask()
            if _is_to_run(plan, trial):
                lease = leases.take(lease_name(trial.number))
                assert lease is not None  # nobody else could know of it
                return ClaimedTrial(trial, lease, adopted=False)
    if started < plan.total:
        raise RunError(f"{MAX_REFUSED} proposals in a row broke sweep.constraints: loosen them")
    return None


def lease_name(number: int) -> str:
    return f"trial-{number}"


def is_done(plan: TrialPlan) -> bool:
    """Whether all trials there are to be have ended."""
    trials = counted_trials(plan.study)
    return len(trials) >= plan.total and all(trial.state.is_finished() for trial in trials)


def _is_to_run(plan: TrialPlan, trial: optuna.Trial) -> bool:
    if plan.draw(trial):
        return True
    trial.set_user_attr("infeasible", True)
    plan.study.tell(trial, state=TrialState.FAIL)
    return False


def _identity(experiment: Experiment) -> dict[str, Any]:
    """What must not change between the trials of one study."""
    flat = flatten(experiment.config)
    ignored = ("sweep.trials", "sweep.confirm", "mlflow.", "claim")
    return {key: value for key, value in flat.items() if not key.startswith(ignored) and key not in INERT}


def changed_keys(known: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The keys that differ; one that is missing is null, as it was before it could be given.

    >>> changed_keys({"seed": 0, "sweep.trials": 9}, {"seed": 1, "sweep.trials": 9, "sweep.folds": None})
    ['seed']
    """
    return [key for key in sorted({*known, *asked} - {*INERT}) if known.get(key) != asked.get(key)]


def _check_images(study: optuna.Study, data: ImageDataModule) -> None:
    """Refuses images that the earlier trials, or those of other machines, were not trained and judged on."""
    if not data.splits:
        return
    images = {**data.source_fingerprints, "split": data.division.fingerprint(data.splits)}
    known = study.user_attrs.get("images")
    if known is None:
        study.set_user_attr("images", images)
        return
    other = [part for part in sorted({*known, *images}) if known.get(part) != images.get(part)]
    if other:
        raise RequestError(
            f"the study {study.study_name!r} searched on other images: the fingerprint of {', '.join(other)} "
            "is another one than its first trials', with which no further one could be compared. Put the "
            "images back as they were, or give this sweep its own --study NAME"
        )


def _check_extension(name: str, known: Mapping[str, Any], asked: Mapping[str, Any], extend: bool) -> None:
    keys = changed_keys(known, asked)
    fixed = [key for key in keys if not is_extension(key, known, asked)]
    if not keys or (extend and not fixed):
        return
    shown = (fixed if extend else keys)[:5]
    difference = ", ".join(f"{key} was {known.get(key)!r} and is {asked.get(key)!r}" for key in shown)
    hint = "" if fixed else "; it can be continued so with --extend"
    raise RequestError(
        f"the study {name!r} searched with other settings: {difference}. "
        f"Give this sweep its own --study NAME{hint}"
    )


def is_extension(key: str, known: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a changed setting leaves the earlier trials what they were, and Optuna able to go on.

    The ends and the step of a range may move, and sampler and pruner change. A dimension may come: earlier
    trials had the recipe's value. What is measured and what is trained may not change, nor what a trial's
    values mean: a dimension that goes, a constant, a condition or a label's settings would give earlier
    trials what they were not trained with. A choice's values Optuna keeps fixed.

    >>> known = {"sweep.space.a.low": 1, "sweep.space.a.high": 9, "sweep.space.a.log": False}
    >>> is_extension("sweep.space.a.high", known, {**known, "sweep.space.a.high": 99})
    True
    >>> is_extension("sweep.space.a.high", known, {})
    False
    """
    if not key.startswith("sweep.space."):
        return key.startswith(("sweep.sampler", "sweep.pruner", "sweep.start", "sweep.constraints"))
    before, after = _dimension(key, known), _dimension(key, asked)
    if before is None:
        return after is not None and asked.get(f"{after}.value") is None
    if before != after or key not in {f"{before}.{setting}" for setting in ("low", "high", "step")}:
        return False
    # Optuna tells whole numbers from fractions, and ranges from choices.
    return _kind(before, known) == _kind(before, asked)


def _dimension(key: str, flat: Mapping[str, Any]) -> str | None:
    """The dimension of the space to which a flat key belongs; both names may have dots."""
    parts = key.split(".")
    names = (".".join(parts[:count]) for count in range(3, len(parts)))
    return next((name for name in names if f"{name}.low" in flat and f"{name}.high" in flat), None)


def _kind(name: str, flat: Mapping[str, Any]) -> str:
    ends = (flat[f"{name}.low"], flat[f"{name}.high"])
    if None in ends:
        return "no range"
    return "whole numbers" if all(isinstance(end, int) for end in ends) else "fractions"
