"""One search dimension: range, choice or constant, with its condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..overrides import to_text

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Dimension:
    """What one key can be: a range from `low` to `high`, one of `choices`, or always `value`.

    Args:
        low: Smallest value; whole numbers on both ends make a whole-number range.
        high: Largest value, included.
        log: Draw the logarithm uniformly.
        step: Distance between the values of a grid over the range.
        choices: Values to choose from; or whole sub-configurations by label, each a mapping of
            configuration keys to values: {small: {model.backbone: small_cnn}, ...}. The dimension's
            name is then no configuration key.
        value: A constant for all trials. For null, give it as the only choice.
        when: Other dimensions' values, one or a list each, under which alone this one is drawn:
            {model.optimizer: [sgd, rmsprop]}. Otherwise the recipe's value stays.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[Any] | dict[str, dict[str, Any]] | None = None
    value: Any = None
    when: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_range = self.low is not None or self.high is not None
        if is_range + (self.choices is not None) + (self.value is not None) != 1:
            raise ValueError("give either low and high, or choices, or value, and one of them only")
        if not is_range and (self.log or self.step is not None):
            raise ValueError("log and step belong to a range: give low and high with them")
        if self.choices is not None:
            if not self.choices:
                raise ValueError("choices must name at least one value")
            texts = [to_text(option) for option in self.options]
            if len(set(texts)) < len(texts):
                raise ValueError(f"choices must differ, got {', '.join(texts)}")
        if is_range:
            self._check_range()

    def _check_range(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low must lie below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must start above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range takes no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be positive, got {self.step}")
        if self.is_whole and isinstance(self.step, float):
            raise ValueError(
                f"the step of a whole-number range must be whole, got {self.step}; "
                f"for fractions write low: {float(self.low)}"
            )

    def __str__(self) -> str:
        """Its values in words.

        >>> str(Dimension(low=1, high=9, step=2)), str(Dimension(choices=["a", [16]]))
        ('1 to 9 in steps of 2', 'a or [16]')
        """
        if self.low is None:
            return " or ".join(to_text(option) for option in self.options)
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step is not None else "")

    @property
    def is_constant(self) -> bool:
        return self.low is None and self.choices is None

    @property
    def is_whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def is_countable(self) -> bool:
        """Whether its values can be listed: all but a range of fractions without a step."""
        return self.low is None or self.is_whole or self.step is not None

    @property
    def labels(self) -> Mapping[str, Mapping[str, Any]] | None:
        """The sub-configurations by label, if it chooses among such."""
        return self.choices if isinstance(self.choices, dict) else None

    @property
    def options(self) -> Sequence[Any]:
        """All values as Optuna stores them, of a countable dimension.

        >>> Dimension(choices=[None, "a", [16, 32]]).options
        [None, 'a', '[16, 32]']
        >>> Dimension(low=0.1, high=0.45, step=0.1).options
        [0.1, 0.2, 0.3, 0.4]
        """
        assert self.is_countable
        if self.choices is not None:
            return [_stored(choice) for choice in self.choices]
        if self.low is None or self.high is None:
            return [_stored(self.value)]
        if self.is_whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        low, step = Decimal(str(self.low)), Decimal(str(self.step))  # 0.3, not 0.30000000000000004
        count = int((Decimal(str(self.high)) - low) / step) + 1
        return [float(low + number * step) for number in range(count)]

    @property
    def examples(self) -> list[Any]:
        """Values as Optuna stores them that must be right if all are to be: each choice, a range's ends."""
        if self.low is None:
            return list(self.options)
        return [self.low, self.options[-1] if self.step is not None else self.high]

    def takes(self, value: Any) -> bool:
        """Whether it can have this value, given as in a configuration.

        >>> Dimension(low=1, high=9, step=2).takes(3), Dimension(low=1, high=9, step=2).takes(4)
        (True, False)
        """
        if self.low is None or self.high is None:
            return any(_same(_stored(value), option) for option in self.options)
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else int | float):
            return False
        steps = (value - self.low) / (self.step or 1)
        on_grid = self.step is None or abs(steps - round(steps)) < 1e-8  # as Optuna judges it
        return self.low <= value <= self.high and on_grid

    def store(self, value: Any) -> Any:
        """The value as Optuna stores it: a scalar, or text for a list or mapping."""
        return float(value) if self.low is not None and not self.is_whole else _stored(value)

    def named_by(self, condition: Any) -> list[Any]:
        """The values that a `when` on this dimension names: one, or a list of them."""
        return condition if isinstance(condition, list) and not self.takes(condition) else [condition]

    def met_by(self, condition: Any) -> list[Any]:
        """The values, as Optuna stores them, under which a `when` on this dimension is met."""
        return [self.store(value) for value in self.named_by(condition)]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """The value that a study proposes, as it stores it."""
        if self.choices is not None:
            return trial.suggest_categorical(name, self.options)
        assert self.low is not None  # a constant is not drawn
        high = self.examples[-1]  # Optuna warns of a range that its step does not divide
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, high, log=self.log, step=self.step)

    def settings(self, name: str, stored: Any) -> dict[str, Any]:
        """The configuration keys that a stored value sets, with their values.

        >>> Dimension(choices=[[16], [32]]).settings("model.widths", "[16]")
        {'model.widths': [16]}
        >>> Dimension(choices={"a": {"model.lr": 0.1}, "b": {}}).settings("preset", "a")
        {'model.lr': 0.1}
        """
        if self.labels is not None:
            return dict(self.labels[stored])
        if self.choices is not None:
            return {name: next(choice for choice in self.choices if _same(_stored(choice), stored))}
        return {name: self.value if self.is_constant else stored}


def _stored(value: Any) -> Any:
    # Optuna stores only scalars; as text a list is one too.
    return to_text(value) if isinstance(value, list | Mapping) else value


def _same(one: Any, other: Any) -> bool:
    """Equality that tells true from 1."""
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)
