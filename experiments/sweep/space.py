"""What a sweep varies: the `sweep:` section of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.trainer import is_minimized


@dataclass(frozen=True)
class Dimension:
    """One varied key: a range from `low` to `high`, or a list of `choices`.

    Args:
        low: Smallest value; whole numbers on both ends make a whole-number range.
        high: Largest value, included.
        log: Draw the logarithm uniformly.
        step: Distance between the values of a grid over the range.
        choices: Values to choose from, instead of a range.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[Any] | None = None

    def __post_init__(self) -> None:
        if self.choices is not None:
            if self.low is not None or self.high is not None:
                raise ValueError("give either choices or low and high, not both")
            if not self.choices:
                raise ValueError("choices must name at least one value")
            return
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low must lie below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must start above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range takes no step")

    @property
    def examples(self) -> list[Any]:
        """Values that the configuration must accept if it is to accept all of them."""
        return list(self.choices) if self.choices is not None else [self.low, self.high]


@dataclass(frozen=True)
class SweepSettings:
    """How to search.

    Args:
        space: The varied configuration keys, such as model.lr, with their ranges.
        metric: What the search improves: a validation metric; the test set stays unseen.
        trials: Configurations to try.
        sampler: Who proposes them: "tpe" learns from earlier ones, "random" does not.
        pruner: "median" stops a trial that is worse than the median of the earlier ones; "none" never does.
    """

    space: Mapping[str, Dimension] = field(default_factory=dict)
    metric: str = "val/accuracy"
    trials: int = 20
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "none"] = "median"

    def __post_init__(self) -> None:
        if not self.metric.startswith("val/"):
            raise ValueError(
                f"sweep.metric must be a validation metric such as val/accuracy, got {self.metric!r}"
            )
        if self.trials < 1:
            raise ValueError(f"sweep.trials must be at least 1, got {self.trials}")

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return "minimize" if is_minimized(self.metric) else "maximize"
