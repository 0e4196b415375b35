"""Checks a sweep section before anything starts."""

from __future__ import annotations

from itertools import islice
from math import prod

from ...errors import nearest
from .constraints import read_constraint
from .points import (
    MAX_PROBED_POINTS,
    broken_constraint,
    check_space,
    check_start,
    drawn_dimensions,
    grid_points,
    points_around,
    stored_point,
    written_keys,
)
from .settings import SweepSettings

MAX_GRID_POINTS = 100_000
# Keys that say on which images a trial is judged.
DIVIDING = ("data.folds", "data.fold", "data.split_seed", "data.test_fraction", "data.val_fraction")
WILCOXON_DEFAULTS = {"p_threshold": 0.1, "n_startup_steps": 2}  # Optuna's


def check_sweep(settings: SweepSettings) -> None:
    """Refuses a sweep whose settings contradict each other.

    What Optuna's own classes refuse is found later, by `check_options` of
    `darkroom.experiments.sweep.study.samplers_and_pruners`.

    Raises:
        ValueError: They do; the message begins with the key, such as `sweep.space`.
    """
    check_space(settings.space)
    check_keys(settings)
    check_start(settings.start, settings.space)
    check_constraints(settings)
    check_strategies(settings)


def check_constraints(settings: SweepSettings) -> None:
    """Each speaks of keys that trials have, can be computed for examples, and lets `start` in.

    Raises:
        ValueError: One does not.
    """
    space, constraints = settings.space, settings.constraints
    known = {*space, *(key for name in space for key in written_keys(name, space[name]))}
    for text in constraints:
        for key in sorted(read_constraint(text).keys - known):
            raise ValueError(
                f"sweep.constraints: {text!r} speaks of {key}, which the space does not set; "
                f"{nearest(key, known)}"
            )
    if constraints:
        for params in islice(points_around({}, space), MAX_PROBED_POINTS):
            broken_constraint(params, space, constraints)
    for point in settings.start:
        broken = broken_constraint(stored_point(point, space), space, constraints)
        if broken is not None:
            raise ValueError(f"sweep.start: {point} breaks the constraint {broken!r}")


def check_keys(settings: SweepSettings) -> None:
    """A trial trains with each of them, and is judged on the same images as all others.

    Raises:
        ValueError: One it would not use, or would make trials that can't be compared.
    """
    for name, dimension in settings.space.items():
        for key in written_keys(name, dimension):
            if reason := _why_not_searched(key):
                raise ValueError(f"sweep.space: {key} can't be searched: {reason}. Take it out of the space")


def _why_not_searched(key: str) -> str | None:
    if key == "seed":
        return (
            "each trial has a seed of its own, and the best seed is only the luckiest; sweep.confirm trains "
            "the best on fresh seeds"
        )
    if key == "name" or key.partition(".")[0] in ("sweep", "claim", "mlflow"):
        return "it means nothing to how a trial trains"
    if key.replace(".init_args.", ".") in DIVIDING:
        return "trials would be judged on different images, and could not be compared"
    return None


def check_strategies(settings: SweepSettings) -> None:
    """Checks that the sampler can search such a space for such objectives, and the pruner can stop a trial.

    Raises:
        ValueError: They can't.
    """
    if settings.sampler == "cmaes":
        _check_cmaes(settings)
    if settings.sampler == "grid":
        _check_grid(settings)
    if settings.pruner == "wilcoxon":
        _check_wilcoxon(settings)


def _check_cmaes(settings: SweepSettings) -> None:
    if settings.objectives:
        raise ValueError("sweep.sampler: cmaes improves one objective only; take nsga2 or tpe for several")
    for name, dimension in settings.space.items():
        if dimension.choices is not None or dimension.when:
            what = "drawn only under a condition" if dimension.when else "a choice"
            raise ValueError(
                f"sweep.sampler: cmaes searches ranges that all trials have, but {name} is {what}; take tpe"
            )


def _check_grid(settings: SweepSettings) -> None:
    drawn = drawn_dimensions(settings.space)
    for name, dimension in drawn.items():
        if not dimension.is_countable:
            raise ValueError(
                f"sweep.sampler: grid needs values to count, but {name} is a range of fractions; "
                "give it a step or choices"
            )
    count = prod(len(dimension.options) for dimension in drawn.values())
    if count > MAX_GRID_POINTS:
        raise ValueError(
            f"sweep.sampler: the grid would have {count:,} points, more than {MAX_GRID_POINTS:,}; "
            "take larger steps, or tpe or qmc"
        )
    if drawn and not grid_points(settings.space, settings.constraints):
        raise ValueError("sweep.constraints: they leave no point of the grid")


def _check_wilcoxon(settings: SweepSettings) -> None:
    """It compares folds, and there are enough of them for it to stop a trial before the last one."""
    if settings.folds is None:
        raise ValueError(
            "sweep.pruner: wilcoxon compares trials fold by fold, and a trial has one split only; give "
            "sweep.folds, or take median, halving or hyperband"
        )
    options = WILCOXON_DEFAULTS | settings.pruner_options
    before_last = settings.folds - 1
    lowest = 0.5**before_last  # p of the signed-rank test where all differences have one sign
    if lowest >= options["p_threshold"] or before_last < options["n_startup_steps"]:
        raise ValueError(
            f"sweep.pruner: wilcoxon could stop no trial of sweep.folds={settings.folds}: worse in "
            f"{before_last} of them has p = {lowest:.3g} at best, and it asks for p below "
            f"{options['p_threshold']:g} (p_threshold) in at least {options['n_startup_steps']} folds "
            "(n_startup_steps). Ask for more folds, change sweep.pruner_options, or take median"
        )
