"""Suggests, converts and enumerates points for a sweep."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..overrides import to_text
from .points import (
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
from .settings import SweepSettings

if TYPE_CHECKING:
    import optuna


def suggest(trial: optuna.Trial, settings: SweepSettings) -> dict[str, Any]:
    """The values that the study proposes for a trial, by dimension and as Optuna stores them."""
    params: dict[str, Any] = {}
    for name, dimension in drawn_dimensions(settings.space).items():
        if is_active(name, params, settings.space):
            params[name] = dimension.suggest(trial, name)
    return params


def overrides(params: Params, settings: SweepSettings) -> dict[str, str]:
    """The configuration overrides of a trial with these stored values, constants included.

    >>> from darkroom.experiments.config.search_space.dimension import Dimension
    >>> space = {"network": Dimension(choices={"small": {"model.lr": 0.1}}), "model.a": Dimension(value=7)}
    >>> overrides({"network": "small"}, SweepSettings(space))
    {'model.lr': '0.1', 'model.a': '7'}
    """
    values = configuration(params, settings.space)
    # A whole comes before its parts, which it would undo.
    return {key: to_text(values[key]) for key in sorted(values, key=lambda key: key.count("."))}


def is_feasible(params: Params, settings: SweepSettings) -> bool:
    """Whether these values meet the constraints; one that speaks of an absent value does not apply.

    >>> from darkroom.experiments.config.search_space.dimension import Dimension
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
