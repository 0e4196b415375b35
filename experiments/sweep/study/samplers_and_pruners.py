"""Optuna samplers and pruners by name."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from ...config.search_space.settings import Direction, SweepSettings
from ...errors import RequestError, nearest

SamplerOrPruner = TypeVar("SamplerOrPruner", BaseSampler, BasePruner)
# Each with the arguments that Darkroom gives it unless the recipe does.
SAMPLERS: dict[str, tuple[type[BaseSampler], Callable[[SweepSettings], dict[str, Any]]]] = {
    "tpe": (
        TPESampler,
        lambda settings: {
            "multivariate": True,
            "group": settings.is_conditional,
            "constant_liar": True,  # several workers ask at once
            "n_startup_trials": _startup_trials(settings),
        },
    ),
    "random": (RandomSampler, lambda _: {}),
    "grid": (RandomSampler, lambda _: {}),  # never asked: all points are starting points
    # Scrambled, a study that goes on with another seed would begin another sequence.
    "qmc": (QMCSampler, lambda _: {"scramble": False, "warn_independent_sampling": False}),
    "gp": (
        GPSampler,
        lambda settings: {
            "n_startup_trials": _startup_trials(settings),
            "warn_independent_sampling": False,
        },
    ),
    "cmaes": (
        CmaEsSampler,
        # Optuna's documentation: with Hyperband yes, with the median no.
        lambda settings: {
            "consider_pruned_trials": settings.pruner == "hyperband",
            "warn_independent_sampling": False,
        },
    ),
    "nsga2": (NSGAIISampler, lambda settings: {"population_size": min(50, max(8, settings.trials // 4))}),
}
# Of a trial's steps, which are its epochs or its folds.
PRUNERS: dict[str, tuple[type[BasePruner], Callable[[int], dict[str, Any]]]] = {
    "median": (MedianPruner, lambda steps: _spared(steps)),
    "percentile": (PercentilePruner, lambda steps: {"percentile": 25.0, **_spared(steps)}),
    "halving": (SuccessiveHalvingPruner, lambda steps: _thirds(steps)),
    "hyperband": (HyperbandPruner, lambda steps: {"max_resource": steps, **_thirds(steps)}),
    "patient": (
        PatientPruner,
        lambda steps: {"wrapped_pruner": MedianPruner(**_spared(steps)), "patience": max(1, steps // 10)},
    ),
    "wilcoxon": (WilcoxonPruner, lambda _: {}),
    "none": (NopPruner, lambda _: {}),
}
NOT_OPTIONS = ("seed", "wrapped_pruner")  # ours to give
CURVE = "curve"  # a trial's user attribute {epoch: value of the metric}


def build_sampler(settings: SweepSettings, seed: int) -> BaseSampler:
    """Optuna's sampler of that name.

    Raises:
        ValueError, TypeError: It refuses a value of its options.
    """
    sampler, defaults = SAMPLERS[settings.sampler]
    return _build(sampler, {**defaults(settings), **settings.sampler_options, "seed": seed % 2**32})


def build_pruner(settings: SweepSettings, steps: int) -> BasePruner:
    """Optuna's pruner of that name, for trials of this many epochs or folds.

    Raises:
        ValueError, TypeError: It refuses a value of its options.
    """
    pruner, defaults = PRUNERS[settings.pruner]
    return _build(pruner, {**defaults(steps), **settings.pruner_options})


def check_options(settings: SweepSettings) -> None:
    """Refuses options that Optuna's classes do not know, or values they do not take.

    Raises:
        RequestError: There is one.
    """
    try:
        _check_options(settings)
    except ValueError as error:
        raise RequestError(str(error)) from error


def _check_options(settings: SweepSettings) -> None:
    _check_names("sampler", settings.sampler, settings.sampler_options, SAMPLERS[settings.sampler][0])
    _check_names("pruner", settings.pruner, settings.pruner_options, PRUNERS[settings.pruner][0])
    try:
        build_sampler(settings, seed=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sweep.sampler_options: {settings.sampler} refuses them: {error}") from error
    try:
        build_pruner(settings, steps=10)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sweep.pruner_options: {settings.pruner} refuses them: {error}") from error


def should_prune(
    pruner: BasePruner, trials: Sequence[FrozenTrial], trial: FrozenTrial, direction: Direction
) -> bool:
    """Whether the pruner would stop a trial of a study with several objectives, by its first one alone.

    Optuna takes no reports in such a study. So the curves, kept in the user attribute "curve" as
    {epoch: value}, are reported to a study in memory with one objective, and the pruner judges that.

    Args:
        trials: All trials of the study, this one with or without its newest epoch.
        trial: The one in question, with its newest epoch.
        direction: Of the metric.
    """
    curves = {other.number: other for other in trials} | {trial.number: trial}
    study = _study_of_curves(pruner, direction)
    for number in range(max(curves) + 1):  # Hyperband divides the trials by their numbers
        study.add_trial(_with_one_objective(pruner, curves.get(number), number, direction, trial.number))
    return pruner.prune(study, study.get_trials(deepcopy=False)[trial.number])


# Reports of one objective ------------------------------------------------------------------------


def _study_of_curves(pruner: BasePruner, direction: Direction) -> optuna.Study:
    storage = optuna.storages.InMemoryStorage()
    return optuna.create_study(storage=storage, pruner=pruner, direction=direction, study_name=CURVE)


def _with_one_objective(
    pruner: BasePruner, trial: FrozenTrial | None, number: int, direction: Direction, judged: int
) -> FrozenTrial:
    """The trial as a study of the metric alone would have it."""
    if trial is None:
        return create_trial(state=TrialState.FAIL)
    curve = _curve(trial)
    # What the pruner is about to judge for the first time, it has not noted yet.
    noted = curve[:-1] if number == judged else curve
    return create_trial(
        state=trial.state if trial.values or trial.state is not TrialState.COMPLETE else TrialState.FAIL,
        value=trial.values[0] if trial.values else None,
        intermediate_values=dict(curve),
        system_attrs=dict(_notes(pruner, number, tuple(noted), direction)),
    )


@lru_cache(maxsize=4096)
def _notes(
    pruner: BasePruner, number: int, curve: tuple[tuple[int, float], ...], direction: Direction
) -> Mapping[str, Any]:
    """What the pruner notes on a trial while it reports this curve: successive halving, its rungs."""
    study = _study_of_curves(pruner, direction)
    storage, trial_id = study._storage, study.ask()._trial_id
    for step, value in curve:
        storage.set_trial_intermediate_value(trial_id, step, value)
        reported = copy.copy(storage.get_trial(trial_id))
        reported.number = number
        pruner.prune(study, reported)
    return storage.get_trial(trial_id).system_attrs


def _curve(trial: FrozenTrial) -> list[tuple[int, float]]:
    """Epochs and values, in order; a storage gives the epochs back as text."""
    curve: Mapping[Any, float] = trial.user_attrs.get(CURVE, {})
    return sorted((int(epoch), float(value)) for epoch, value in curve.items())


# Defaults and options ----------------------------------------------------------------------------


def _startup_trials(settings: SweepSettings) -> int:
    """Trials at random before a model of the earlier ones proposes: 8, or a third of a small budget."""
    return min(8, max(4, settings.trials // 3))


def _spared(steps: int) -> dict[str, Any]:
    """None is stopped before three trials are known, or in its first fifth."""
    return {"n_startup_trials": 3, "n_warmup_steps": max(1, steps // 5)}


def _thirds(steps: int) -> dict[str, Any]:
    """Two of three are stopped at a ninth of the steps, and of the rest at a third."""
    return {"min_resource": max(1, steps // 9), "reduction_factor": 3}


def _build(cls: type[SamplerOrPruner], arguments: Mapping[str, Any]) -> SamplerOrPruner:
    with warnings.catch_warnings():
        # Half of Optuna's arguments are called experimental, for years.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return cls(**arguments)


def _check_names(kind: str, name: str, options: Mapping[str, Any], cls: type) -> None:
    known = set(inspect.signature(cls).parameters) - set(NOT_OPTIONS)
    for option in options:
        if option not in known:
            advice = nearest(option, known) if known else "it takes none"
            raise ValueError(f"sweep.{kind}_options: {name} has no option {option}; {advice}")
