"""Points of a search space: active dimensions, grids, overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from typing import Any

from ...errors import nearest
from .constraints import read_constraint
from .dimension import Dimension

Dimensions = Mapping[str, Dimension]
Params = Mapping[str, Any]  # values by dimension, as Optuna stores them
MAX_PROBED_POINTS = 1_000  # of the combinations that are tried before a search


def drawn_dimensions(space: Dimensions) -> dict[str, Dimension]:
    """The dimensions that are no constants, each after those that its conditions name."""
    return {name: space[name] for name in _order(space) if not space[name].is_constant}


def is_active(name: str, params: Params, space: Dimensions) -> bool:
    """Whether the values of other dimensions let this one be drawn.

    >>> space = {"a": Dimension(choices=["x", "y"]), "b": Dimension(low=0, high=9, when={"a": "x"})}
    >>> is_active("b", {"a": "x"}, space), is_active("b", {"a": "y"}, space), is_active("b", {}, space)
    (True, False, False)
    """
    for other, condition in space[name].when.items():
        constant = space[other].is_constant
        if not (constant or other in params) or not is_active(other, params, space):
            return False
        value = space[other].options[0] if constant else params[other]
        if value not in space[other].met_by(condition):
            return False
    return True


def configuration(params: Params, space: Dimensions) -> dict[str, Any]:
    """The values that a point gives to configuration keys, those of constants included."""
    values: dict[str, Any] = {}
    for name, dimension in space.items():
        if (dimension.is_constant or name in params) and is_active(name, params, space):
            values |= dimension.settings(name, params.get(name))
    return values


def points(values: Mapping[str, Sequence[Any]], space: Dimensions) -> Iterator[dict[str, Any]]:
    """Every combination of the values, once, without those of inactive dimensions.

    >>> space = {"a": Dimension(choices=["x", "y"]), "b": Dimension(low=1, high=2, when={"a": "x"})}
    >>> list(points({"a": ["x", "y"], "b": [1, 2]}, space))
    [{'a': 'x', 'b': 1}, {'a': 'x', 'b': 2}, {'a': 'y'}]
    """

    def extended(point: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not names:
            yield point
        elif not is_active(names[0], point, space):
            yield from extended(point, names[1:])
        else:
            for value in values[names[0]]:
                yield from extended({**point, names[0]: value}, names[1:])

    return extended({}, list(drawn_dimensions(space)))


def grid_points(space: Dimensions, constraints: Sequence[str]) -> list[dict[str, Any]]:
    """All points of a space whose dimensions can be counted, without those that a constraint refuses."""
    values = {name: dimension.options for name, dimension in drawn_dimensions(space).items()}
    return [point for point in points(values, space) if broken_constraint(point, space, constraints) is None]


def broken_constraint(params: Params, space: Dimensions, constraints: Sequence[str]) -> str | None:
    """The first constraint that a point does not meet; one that speaks of an absent value does not apply."""
    values = {**params, **configuration(params, space)}
    return next((text for text in constraints if not read_constraint(text).holds(values)), None)


def points_around(fixed: Params, space: Dimensions) -> Iterator[dict[str, Any]]:
    """Whole points with these values, in which the other dimensions have examples of theirs."""
    values: dict[str, Sequence[Any]] = {name: item.examples for name, item in drawn_dimensions(space).items()}
    needed = set(fixed)
    for name in reversed(_order(space)):
        for other, condition in space[name].when.items() if name in needed else ():
            needed.add(other)
            values[other] = space[other].met_by(condition)
    values |= {name: [value] for name, value in fixed.items()}
    return (point for point in points(values, space) if fixed.keys() <= point.keys())


def stored_point(point: Mapping[str, Any], space: Dimensions) -> dict[str, Any]:
    """A point written as in a configuration, as Optuna stores it, without constants and what is inactive."""
    stored: dict[str, Any] = {}
    for name, dimension in drawn_dimensions(space).items():
        if name in point and is_active(name, stored, space):
            stored[name] = dimension.store(point[name])
    return stored


def configured_point(configured: Mapping[str, Any], space: Dimensions) -> dict[str, Any]:
    """A configuration's own values by dotted key, where they lie within the space.

    >>> space = {"model.lr": Dimension(low=0.1, high=1.0), "data.batch_size": Dimension(low=5, high=9)}
    >>> configured_point({"model.lr": 0.3, "data.batch_size": 4}, space)
    {'model.lr': 0.3}
    """
    own: dict[str, Any] = {}
    for name, dimension in drawn_dimensions(space).items():
        if not is_active(name, own, space):
            continue
        if dimension.choices is None:
            if dimension.takes(value := configured.get(_short(name))):
                own[name] = dimension.store(value)
            continue
        for option in dimension.options:
            if all(_is_configured(*item, configured) for item in dimension.settings(name, option).items()):
                own[name] = option
                break
    return own


def written_keys(name: str, dimension: Dimension) -> list[str]:
    """The configuration keys that a dimension may set."""
    if dimension.labels is None:
        return [name]
    return list(dict.fromkeys(key for settings in dimension.labels.values() for key in settings))


def check_space(space: Dimensions) -> None:
    """Refuses conditions that can't be met, and two dimensions that set one key.

    Raises:
        ValueError: There is such a one.
    """
    for name, dimension in space.items():
        for other, condition in dimension.when.items():
            _check_condition(
                f"sweep.space: {name} waits for {other}={condition!r}, but", other, condition, space
            )
    try:
        _order(space)
    except CycleError as error:
        names = ", ".join(dict.fromkeys(error.args[1]))
        raise ValueError(f"sweep.space: {names} wait for each other; take one `when` away") from error
    writers = [
        (name, label, key)
        for name, dimension in space.items()
        for label, settings in _branches(name, dimension)
        for key in settings
    ]
    for (one, label, key), (other, other_label, other_key) in combinations(writers, 2):
        exclusive = _excludes(space[one], other, other_label, space) or _excludes(
            space[other], one, label, space
        )
        if one != other and _short(key) == _short(other_key) and not exclusive:
            raise ValueError(
                f"sweep.space: both {one} and {other} set {key}; leave it to one of them, or draw one "
                "only `when` the other does not set it"
            )


def check_start(start: Sequence[Mapping[str, Any]], space: Dimensions) -> None:
    """Refuses a starting point outside the space.

    Raises:
        ValueError: There is one.
    """
    for point in start:
        for name, value in point.items():
            if name not in space:
                raise ValueError(f"sweep.start: the space has no {name}; {nearest(name, space)}")
            if not space[name].takes(value):
                raise ValueError(
                    f"sweep.start: {name} can't be {value!r}; the space lets it be {space[name]}"
                )


def _check_condition(where: str, other: str, condition: Any, space: Dimensions) -> None:
    if other not in space:
        raise ValueError(f"{where} the space has no {other}; {nearest(other, space)}")
    if not space[other].is_countable:
        raise ValueError(f"{where} {other} is a range of fractions: give it choices, or a step")
    for value in space[other].named_by(condition):
        if not space[other].takes(value):
            raise ValueError(f"{where} {other} can't be {value!r}; it can be {space[other]}")


def _branches(name: str, dimension: Dimension) -> list[tuple[str | None, Mapping[str, Any]]]:
    """What a dimension sets, by label."""
    return [(None, {name: None})] if dimension.labels is None else list(dimension.labels.items())


def _excludes(dimension: Dimension, other: str, label: str | None, space: Dimensions) -> bool:
    """Whether a dimension is drawn only where `other` has another label."""
    return other in dimension.when and label not in space[other].met_by(dimension.when[other])


def _order(space: Dimensions) -> list[str]:
    return list(TopologicalSorter({name: dimension.when for name, dimension in space.items()}).static_order())


def _is_configured(key: str, value: Any, configured: Mapping[str, Any]) -> bool:
    if isinstance(value, Mapping) and value:
        return all(_is_configured(f"{key}.{part}", item, configured) for part, item in value.items())
    return _short(key) in configured and bool(configured[_short(key)] == value)


def _short(key: str) -> str:
    return key.replace(".init_args.", ".")
