"""The Optuna study: opened or created, and the values it proposes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from datamodules.randomness import derive_seed
from experiments.config import Experiment, flatten, to_text
from experiments.errors import RequestError
from experiments.sweep.space import Dimension, SweepSettings

DEFAULT_STORAGE = "sqlite:///optuna.db"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(experiment: Experiment, name: str, storage_url: str) -> optuna.Study:
    """The study of this name, continued if it is there.

    Raises:
        RequestError: The storage does not answer, or the study searched another space or recipe.
    """
    sweep = experiment.sweep
    assert sweep is not None  # the command has looked
    try:
        # Processes that create one SQLite store together crash each other.
        with FileLock(Path("mlruns") / ".optuna.lock"):
            study = optuna.create_study(
                study_name=name,
                storage=storage_url,
                direction=sweep.direction,
                load_if_exists=True,
            )
    except Exception as error:  # whatever a database driver may raise
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"the study's storage {storage_url} can't be opened: {reason}") from error
    asked = json.loads(json.dumps(_identity(experiment)))
    if "experiment" not in study.user_attrs:
        study.set_user_attr("experiment", asked)
        study.enqueue_trial(_own_values(experiment))
    elif study.user_attrs["experiment"] != asked:
        raise RequestError(
            f"the study {name!r} searched with other settings: "
            f"{_difference(study.user_attrs['experiment'], asked)}. Give this sweep its own --study NAME"
        )
    study.sampler = _build_sampler(sweep, derive_seed(experiment.seed, len(study.trials)))
    study.pruner = _build_pruner(sweep, experiment.trainer.max_epochs)
    return study


def adopt_or_ask(study: optuna.Study) -> optuna.Trial:
    """A trial that an interrupted sweep left running, in place, or else a new one.

    The caller must hold the study for itself: a running trial is then nobody's. Adopted, it keeps its
    number, its values and what it has reported.
    """
    orphans = study.get_trials(states=[TrialState.RUNNING])
    return optuna.trial.Trial(study, orphans[0]._trial_id) if orphans else study.ask()


def suggest(trial: optuna.Trial, sweep: SweepSettings) -> dict[str, str]:
    """The values that the study proposes for a trial, as overrides."""
    return {key: to_text(_suggest(trial, key, dimension)) for key, dimension in sweep.space.items()}


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that need no more work, best first; pruned and failed ones last."""
    trials = study.get_trials(states=FINISHED)
    sign = 1 if study.direction is optuna.study.StudyDirection.MINIMIZE else -1
    order = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    return sorted(trials, key=lambda trial: (order.index(trial.state), sign * (trial.value or 0)))


def _suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        # Optuna stores only scalars; as text a list is one too.
        return trial.suggest_categorical(key, [to_text(choice) for choice in dimension.choices])
    low, high = dimension.low, dimension.high
    assert low is not None  # the dimension has looked
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, log=dimension.log, step=int(dimension.step or 1))
    return trial.suggest_float(key, low, high, log=dimension.log, step=dimension.step)


def _own_values(experiment: Experiment) -> dict[str, Any]:
    """The recipe's own values, where they lie within the space: the first trial."""
    configured = flatten(experiment.config)
    assert experiment.sweep is not None
    own: dict[str, Any] = {}
    for key, dimension in experiment.sweep.space.items():
        value = configured.get(key.replace(".init_args.", "."))
        if dimension.choices is not None:
            if value in dimension.choices:
                own[key] = to_text(value)
        elif isinstance(value, int | float) and dimension.low <= value <= dimension.high:  # type: ignore[operator]
            own[key] = value
    return own


def _build_sampler(sweep: SweepSettings, seed: int) -> optuna.samplers.BaseSampler:
    seed %= 2**32
    if sweep.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def _build_pruner(sweep: SweepSettings, max_epochs: int) -> optuna.pruners.BasePruner:
    if sweep.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=max(1, max_epochs // 5))


def _identity(experiment: Experiment) -> dict[str, Any]:
    """What must not change between the trials of one study: all but how many there are to be."""
    flat = flatten(experiment.config)
    ignored = ("sweep.trials", "mlflow.", "claim", "trainer.progress", "data.root", "data.download")
    return {key: value for key, value in flat.items() if not key.startswith(ignored)}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in keys[:5])
