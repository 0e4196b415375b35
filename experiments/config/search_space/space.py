"""What a sweep varies: the `sweep:` section of a recipe, and the points of its space."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from experiments.errors import nearest
from experiments.overrides import to_text
from experiments.sweep.dimension import Dimension
from experiments.sweep.points import (
    MAX_PROBED_POINTS,
    Params,
    broken_constraint,
    configuration,
    configured_point,
    drawn_dimensions,
    grid_points,
    is_active,
    points_around,
    stored_point,
    written_keys,
)
from experiments.trainer import check_validation_metric, is_minimized

if TYPE_CHECKING:
    import optuna

__all__ = [
    "Confirm", "Dimension", "SweepSettings", "configuration_keys", "directions", "is_feasible",
    "overrides", "probes", "starting_points", "suggest",
]  # fmt: skip

OBJECTIVES = ("num_parameters", "train_seconds", "latency_ms")

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Confirm:
    """Trains the best configurations anew, since the best of many trials was also the luckiest.

    Args:
        top: How many of the best configurations.
        seeds: Fresh seeds for each of them.
    """

    top: int = 3
    seeds: int = 3

    def __post_init__(self) -> None:
        for name in ("top", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"sweep.confirm.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class SweepSettings:
    """How to search.

    Args:
        space: The varied configuration keys, such as model.lr, with what each can be.
        metric: What the search improves: a validation metric; the test set stays unseen.
        objectives: What it shall keep small besides: num_parameters, train_seconds, latency_ms.
            The answer is then a front of trials, found with "nsga2" or "tpe".
        folds: Train each trial once on every fold of the training images, and judge it by the mean; trials
            are compared, and stopped, after whole folds. Null judges on the recipe's validation images.
        trials: Configurations to try.
        sampler: Who proposes them: "tpe" learns from earlier ones; "random"; "grid" tries every point
            once; "qmc" spreads them evenly; "gp" models the metric, good for few and long trials;
            "cmaes" is for many trials of numbers alone; "nsga2" breeds for several objectives.
        sampler_options: Arguments of Optuna's sampler of that name.
        pruner: Who stops hopeless trials: "median" those worse than the median of the earlier ones,
            "percentile" those outside the best quarter, "halving" two of three at each of a few epochs,
            "hyperband" likewise with several schedules, "patient" as median, but only where nothing
            improves any more; "none" stops none; "wilcoxon" those that are worse than the best one in
            too many of the same folds (signed-rank test).
        pruner_options: Arguments of Optuna's pruner of that name.
        start: Points to try first, after the recipe's own: values by dimension. What a point leaves
            open is proposed.
        constraints: Conditions between the values, such as "model.lr * 10 > model.weight_decay" or
            "model.backbone_options.widths[0] <= 32". One that speaks of a key without a value holds.
        confirm: Trains the best configurations again with fresh seeds, on the same folds where there are
            any; null tests the best trial's.
    """

    space: Mapping[str, Dimension] = field(default_factory=dict)
    metric: str = "val/accuracy"
    objectives: list[str] = field(default_factory=list)
    folds: int | None = None
    trials: int = 20
    sampler: Literal["tpe", "random", "grid", "qmc", "gp", "cmaes", "nsga2"] = "tpe"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    pruner: Literal["median", "percentile", "halving", "hyperband", "wilcoxon", "patient", "none"] = "median"
    pruner_options: dict[str, Any] = field(default_factory=dict)
    start: list[dict[str, Any]] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    confirm: Confirm | None = None

    def __post_init__(self) -> None:
        check_validation_metric("sweep.metric", self.metric)
        for objective in self.objectives:
            if objective not in OBJECTIVES:
                raise ValueError(
                    f"sweep.objectives: none is named {objective!r}; {nearest(objective, OBJECTIVES)}"
                )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"sweep.objectives must differ, got {', '.join(self.objectives)}")
        if self.trials < 1:
            raise ValueError(f"sweep.trials must be at least 1, got {self.trials}")
        if self.folds is not None and self.folds < 2:
            raise ValueError(
                f"sweep.folds must be at least 2, got {self.folds}; 5 is customary, and null judges trials "
                "on the recipe's own validation images"
            )

    @property
    def direction(self) -> Direction:
        """Of the metric."""
        return "minimize" if is_minimized(self.metric) else "maximize"

    @property
    def is_conditional(self) -> bool:
        """Whether some trials have dimensions that others have not."""
        return any(dimension.when for dimension in self.space.values())

    def steps(self, max_epochs: int) -> int:
        """After how many reports a trial ends at the latest: one for each fold, or else for each epoch.

        >>> SweepSettings().steps(max_epochs=30), SweepSettings(folds=5).steps(max_epochs=30)
        (30, 5)
        """
        return self.folds or max_epochs


def directions(settings: SweepSettings) -> list[Direction]:
    """Whether to minimise or maximise the metric, and each further objective.

    >>> directions(SweepSettings(objectives=["num_parameters"]))
    ['maximize', 'minimize']
    """
    return [settings.direction] + ["minimize"] * len(settings.objectives)


def suggest(trial: optuna.Trial, settings: SweepSettings) -> dict[str, Any]:
    """The values that the study proposes for a trial, by dimension and as Optuna stores them."""
    params: dict[str, Any] = {}
    for name, dimension in drawn_dimensions(settings.space).items():
        if is_active(name, params, settings.space):
            params[name] = dimension.suggest(trial, name)
    return params


def overrides(params: Params, settings: SweepSettings) -> dict[str, str]:
    """The configuration overrides of a trial with these stored values, constants included.

    >>> space = {"network": Dimension(choices={"small": {"model.lr": 0.1}}), "model.a": Dimension(value=7)}
    >>> overrides({"network": "small"}, SweepSettings(space))
    {'model.lr': '0.1', 'model.a': '7'}
    """
    values = configuration(params, settings.space)
    # A whole comes before its parts, which it would undo.
    return {key: to_text(values[key]) for key in sorted(values, key=lambda key: key.count("."))}


def is_feasible(params: Params, settings: SweepSettings) -> bool:
    """Whether these values meet the constraints; one that speaks of an absent value does not apply.

    >>> space = {"a": Dimension(low=0, high=9), "b": Dimension(low=0, high=9)}
    >>> settings = SweepSettings(space, constraints=["a < b"])
    >>> is_feasible({"a": 1, "b": 2}, settings), is_feasible({"a": 2, "b": 2}, settings)
    (True, False)
    """
    return broken_constraint(params, settings.space, settings.constraints) is None


def starting_points(settings: SweepSettings, configured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials to begin with: the recipe's own values where they lie within the space, then `start`.

    For a grid they are all of its points, those ones first, the rest in an order that only the space
    decides. Each is given as Optuna stores it.

    Args:
        configured: The recipe's values by dotted key.
    """
    wanted = [configured_point(configured, settings.space)]
    wanted += [stored_point(point, settings.space) for point in settings.start]
    if settings.sampler == "grid":
        grid = grid_points(settings.space, settings.constraints)
        random.Random(0).shuffle(grid)  # cut short, it has still been all over the space
        return sorted(grid, key=lambda point: _first_match(point, wanted))
    distinct = [point for place, point in enumerate(wanted) if point not in wanted[:place]]
    return [point for point in distinct if point and is_feasible(point, settings)]


def configuration_keys(settings: SweepSettings) -> list[str]:
    """The configuration keys that trials may set."""
    return [key for name, dimension in settings.space.items() for key in written_keys(name, dimension)]


def probes(settings: SweepSettings) -> Iterator[dict[str, Any]]:
    """Stored values of whole trials that show each choice, each end of a range and each point of `start`.

    What no feasible one of them could have is left out.
    """
    drawn = drawn_dimensions(settings.space)
    fixed = [{name: example} for name, dimension in drawn.items() for example in dimension.examples]
    fixed += [stored_point(point, settings.space) for point in settings.start]
    for values in [{}, *fixed]:
        candidates = islice(points_around(values, settings.space), MAX_PROBED_POINTS)
        feasible = (point for point in candidates if is_feasible(point, settings))
        yield from islice(feasible, 1)


def _first_match(point: Params, wanted: Sequence[Params]) -> int:
    """The place of the first of the wanted points whose values this one has."""
    matches = (place for place, want in enumerate(wanted) if want and want.items() <= point.items())
    return next(matches, len(wanted))
