"""The sweep section of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from darkroom.lightning_modules.metrics.names import is_minimized

from ...errors import nearest
from ..trainer_settings import check_validation_metric
from .dimension import Dimension

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
        """Whether the metric is minimised or maximised."""
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
