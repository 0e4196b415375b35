"""Trial queries: ranked, complete, curves, Pareto front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from ...config.search_space.settings import SweepSettings

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
STATE_NAMES = {TrialState.FAIL: "failed"} | {
    state: state.name.lower() for state in STATES if state.name != "FAIL"
}
FOLD_VALUES = "folds"  # a trial's user attribute {folds trained: the last one's value}


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials that began, without the proposals that a constraint refused; not to be changed."""
    trials = study.get_trials(deepcopy=False, states=STATES)
    return [trial for trial in trials if not trial.user_attrs.get("infeasible")]


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials, best first by the first objective; pruned and failed ones last."""
    sign = -1 if study.directions[0] is optuna.study.StudyDirection.MAXIMIZE else 1
    finished = [trial for trial in counted_trials(study) if trial.state.is_finished()]

    def place(trial: FrozenTrial) -> tuple[int, float, int]:
        value = last_value(trial)
        return STATES.index(trial.state), math.inf if math.isnan(value) else sign * value, trial.number

    return sorted(finished, key=place)


def best_trial(study: optuna.Study, settings: SweepSettings) -> FrozenTrial | None:
    """The complete trial that is best in `settings.metric`, whatever else is; None before one."""
    complete = [trial for trial in counted_trials(study) if trial.state is TrialState.COMPLETE]
    choose = min if settings.direction == "minimize" else max
    return choose(complete, key=lambda trial: trial.values[0], default=None)


def complete_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the trials that trained to their end with a finite value."""
    return [each for each in trials if each.state is TrialState.COMPLETE and math.isfinite(each.values[0])]


def curve(trial: FrozenTrial) -> dict[int, float]:
    """The metric after each epoch, or its mean after each fold, in order.

    With several objectives Optuna keeps it as an attribute.
    """
    if values := fold_values(trial):
        return {folds: statistics.fmean(values[:folds]) for folds in range(1, len(values) + 1)}
    points = trial.intermediate_values or trial.user_attrs.get("curve", {})
    return {int(epoch): float(points[epoch]) for epoch in sorted(points, key=int)}


def fold_values(trial: FrozenTrial) -> list[float]:
    """The metric of each of its folds so far; none of a trial without."""
    values = trial.user_attrs.get(FOLD_VALUES, {})
    return [float(values[folds]) for folds in sorted(values, key=int)]


def last_value(trial: FrozenTrial) -> float:
    """A complete trial's metric, or else what it reported last; NaN when nothing."""
    if trial.state is TrialState.COMPLETE:
        return float(trial.values[0])
    return next(reversed(curve(trial).values()), math.nan)


def epochs_trained(trial: FrozenTrial) -> int:
    """Of all its folds; while a trial is under way, those that it has reported, which a fold's are not."""
    reported = 0 if fold_values(trial) else max(curve(trial), default=0)
    return int(trial.user_attrs.get("epochs", reported))


def finite_points(study: optuna.Study) -> dict[int, list[float]]:
    """Complete trials' objectives by number, where all are finite."""
    complete = [trial for trial in counted_trials(study) if trial.state is TrialState.COMPLETE]
    return {each.number: each.values for each in complete if all(map(math.isfinite, each.values))}


def is_on_front(costs: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Which rows, of (N, M) costs, no other row surpasses: no worse in all, better in one.

    >>> is_on_front(np.array([[1, 3], [2, 2], [2, 3], [1, 3]])).tolist()
    [True, True, False, True]
    """
    no_worse = (costs[:, None] <= costs).all(axis=2)  # (N, N)
    better = (costs[:, None] < costs).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Each key's last part, or as many of its last parts as tell it from the others.

    >>> short_names(["model.lr", "model.size", "data.size"])
    {'model.lr': 'lr', 'model.size': 'model.size', 'data.size': 'data.size'}
    """
    parts = {key: key.split(".") for key in keys}
    names = {}
    for key, own in parts.items():
        others = [other for name, other in parts.items() if name != key]
        count = next((n for n in range(1, len(own)) if all(own[-n:] != o[-n:] for o in others)), len(own))
        names[key] = ".".join(own[-count:])
    return names


def describe(params: Mapping[str, Any]) -> str:
    """The varied keys with their values, in short.

    >>> describe({"model.lr": 0.0123456, "model.widths": "[32, 64]", "data.batch_size": 1024})
    'lr=0.0123 widths=[32, 64] batch_size=1024'
    """
    return " ".join(f"{name}={short_value(params[key])}" for key, name in short_names(params).items())


def short_value(value: object) -> str:
    """A number with a fraction in three digits, all else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def varied_keys(trials: Sequence[FrozenTrial], settings: SweepSettings) -> list[str]:
    """The keys that trials vary, in the recipe's order."""
    used = dict.fromkeys(key for trial in trials for key in trial.params)
    return [
        *(key for key in settings.space if key in used),
        *(key for key in used if key not in settings.space),
    ]
