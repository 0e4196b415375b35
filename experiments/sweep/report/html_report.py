"""Interactive HTML report."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate, combinations
from typing import Any, TypeAlias

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from ...config.search_space.settings import SweepSettings
from ...reporting.html_page import build_page
from ...reporting.style import BLUE, INK, PALE, PALETTE, RED
from ..study.trials import STATE_NAMES, STATES, complete_trials, is_on_front, last_value, short_value
from .axes import Column, drawn_range, padded, smoothed
from .plots import NOT_USED, STATE_COLOURS

LAYOUT: dict[str, Any] = {
    "font": {"family": "sans-serif", "size": 12, "color": INK},
    "colorway": PALETTE,
    "hovermode": "closest",
    "hoverlabel": {"align": "left"},
    "margin": {"t": 30, "b": 50, "l": 70, "r": 20},
    "legend": {"tracegroupgap": 0},
}
BLUES = [[0, "#cddff1"], [0.5, "#4a98c9"], [1, "#08306b"]]
PANELS_ACROSS = 4
Drawing: TypeAlias = tuple[list[dict[str, Any]], dict[str, Any]]  # data and layout, as plotly.js takes them


def render_page(
    title: str,
    summary: str,
    settings: SweepSettings,
    shown: Sequence[FrozenTrial],
    shares: Mapping[str, float],
    contoured: Sequence[str],
    points: Mapping[int, Sequence[float]],
) -> str:
    """All that the trials suffice for, one below the other.

    Args:
        title: The study's name.
        summary: A line below it.
        settings: The metric's name and direction, and those of further objectives.
        shown: The trials as `report.shown_trials` gives them.
        shares: Each key's importance; none where that is not known.
        contoured: The keys to draw against each other: none, or at least two.
        points: All objectives of complete trials, by number.
    """
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p>"]
    for heading, caption, (data, layout) in _drawings(settings, shown, shares, contoured, points):
        figure = {"data": data, "layout": {"height": 360} | LAYOUT | layout}
        # Unvalidated, a figure takes a tenth of the time.
        config = {"displaylogo": False}
        drawn = to_html(figure, config, include_plotlyjs=False, full_html=False, validate=False)
        parts.append(f"<h2>{heading}</h2><p>{html.escape(caption)}</p>{drawn}")
    return build_page(title, "\n".join(parts), script=get_plotlyjs())


def _drawings(
    settings: SweepSettings,
    shown: Sequence[FrozenTrial],
    shares: Mapping[str, float],
    contoured: Sequence[str],
    points: Mapping[int, Sequence[float]],
) -> Iterator[tuple[str, str, Drawing]]:
    """Heading, caption and drawing of what the trials suffice for."""
    metric, minimized = settings.metric, settings.direction == "minimize"
    complete = complete_trials(shown)
    names = list(dict.fromkeys(name for trial in complete for name in trial.params))
    if complete:
        caption = f"{metric} of each trial; a pruned one's is the last that it reported."
        yield "History", caption, _history(shown, metric, minimized)
    if any(trial.intermediate_values for trial in shown):
        what = f"Mean {metric} after each fold." if settings.folds else f"{metric} after each epoch."
        yield "Curves", what, _curves(shown, metric, minimized, "folds" if settings.folds else "epoch")
    if settings.objectives and points:
        caption = "No other trial surpasses one on the front in all objectives."
        yield "Pareto front", caption, _pareto_front(shown, points, settings)
    if len(complete) > 1 and names:
        caption = "A line is a trial, the darker the better. Drag along an axis to select, axes to reorder."
        yield "Parallel coordinates", caption, _parallel_coordinates(complete, names, metric, minimized)
        yield "Slices", f"{metric} over each key.", _slices(complete, names, metric, minimized)
    if shares:
        yield "Importance", f"Share of the variance of {metric} (fANOVA).", _importances(shares)
    if contoured:
        caption = f"Mean {metric} of nearby trials, over the most important keys; the best is ringed."
        yield "Contours", caption, _contours(complete, contoured, metric, minimized)
    if any(trial.datetime_start for trial in shown):
        yield "Timeline", "When each trial ran.", _timeline(shown)


def _history(shown: Sequence[FrozenTrial], metric: str, minimized: bool) -> Drawing:
    finite = [trial for trial in shown if math.isfinite(last_value(trial))]
    groups = [[each for each in finite if each.state is state] for state in STATES[:2]]
    limits = drawn_range([last_value(each) for group in groups for each in group], minimized)
    data: list[dict[str, Any]] = []
    for trials, state, symbol in zip(groups, STATES, ("circle", "circle-open"), strict=False):
        marker = {"size": 8, "color": STATE_COLOURS[state], "symbol": symbol}
        numbers, values = [each.number for each in trials], list(map(last_value, trials))
        data.append(_dots(numbers, np.clip(values, *limits), trials, marker) | {"name": STATE_NAMES[state]})
    numbers = [*data[0]["x"], shown[-1].number]
    best = list(accumulate(map(last_value, groups[0]), min if minimized else max))
    steps = {"x": numbers, "y": np.clip([*best, best[-1]], *limits), "line": {"shape": "hv", "color": INK}}
    data.append({"mode": "lines", "name": "best so far", "hoverinfo": "skip"} | steps)
    return data, {"xaxis": _axis("Trial"), "yaxis": _axis(metric, range=padded(*limits))}


def _curves(shown: Sequence[FrozenTrial], metric: str, minimized: bool, steps: str) -> Drawing:
    best = (min if minimized else max)(complete_trials(shown), key=last_value, default=None)
    reported = [trial for trial in shown if trial.intermediate_values]
    data: list[dict[str, Any]] = []
    for trial in sorted(reported, key=lambda each: (each is best, each.state is not TrialState.PRUNED)):
        name = f"best (trial {trial.number})" if trial is best else STATE_NAMES[trial.state]
        colour, width = (INK, 3.0) if trial is best else (STATE_COLOURS[trial.state], 1.2)
        places, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        dots = _dots(places, values, [trial] * len(places), {"size": 4})
        dots |= {"mode": "lines" if len(places) > 1 else "markers", "name": name}
        dots |= {"line": {"color": colour, "width": width}}
        dots |= {"legendgroup": name, "showlegend": all(name != each["name"] for each in data)}
        data.append(dots | {"hovertemplate": f"{steps} %{{x}}: %{{y:.4f}}<br>%{{text}}<extra></extra>"})
    finite = [value for each in data for value in each["y"] if math.isfinite(value)]
    limits = padded(*drawn_range(finite, minimized)) if finite else None
    return data, {"xaxis": _axis(steps.capitalize()), "yaxis": _axis(metric, range=limits)}


def _pareto_front(
    shown: Sequence[FrozenTrial], points: Mapping[int, Sequence[float]], settings: SweepSettings
) -> Drawing:
    trials = [trial for trial in shown if trial.number in points]
    values = np.array([points[trial.number] for trial in trials])  # (N, M)
    signs = [1 if settings.direction == "minimize" else -1] + [1] * len(settings.objectives)
    on_front = is_on_front(values * signs)  # (N,)
    data: list[dict[str, Any]] = []
    layout = _grid(1, len(settings.objectives))
    layout["yaxis"] = _axis(settings.metric)
    for place, objective in enumerate(settings.objectives, 1):
        layout[_name("xaxis", place)] = _axis(objective)
        for group, name, colour in ((~on_front, "surpassed", PALETTE[3]), (on_front, "Pareto front", BLUE)):
            members = [trial for trial, inside in zip(trials, group, strict=True) if inside]
            dots = _dots(values[group, place], values[group, 0], members, {"size": 8, "color": colour})
            data.append(dots | {"name": name, "xaxis": _name("x", place), "showlegend": place == 1})
    return data, layout


def _parallel_coordinates(
    complete: Sequence[FrozenTrial], names: Sequence[str], metric: str, minimized: bool
) -> Drawing:
    values = np.array(list(map(last_value, complete)))
    limits = drawn_range(values, minimized)
    columns = [Column.of(name, complete) for name in names]
    columns.append(Column(metric, np.clip(values, *limits), limits, False, ()))
    dimensions = []
    for column in columns:
        places, labels = column.ticks()
        ticks = column.unit(places).tolist()
        # An axis is drawn no further than its ticks.
        ends = [end for end in (0.0, 1.0) if not np.isclose(ticks, end).any()]
        ticks, labels = [*ticks, *ends], [*labels, *("" for _ in ends)]
        if np.isnan(column.places).any():
            ticks, labels = [NOT_USED, *ticks], ["not used", *labels]
        heights = np.nan_to_num(column.unit(column.places), nan=NOT_USED)
        axis = {"label": column.name, "range": [NOT_USED, 1.02], "tickvals": ticks, "ticktext": labels}
        dimensions.append(axis | {"values": heights})
    line = {"color": columns[-1].places, "colorscale": BLUES, "reversescale": minimized}
    data = [{"type": "parcoords", "dimensions": dimensions, "line": line}]
    return data, {"margin": {"t": 70, "b": 30, "l": 70, "r": 90}}


def _slices(complete: Sequence[FrozenTrial], names: Sequence[str], metric: str, minimized: bool) -> Drawing:
    rows = [names[start : start + PANELS_ACROSS] for start in range(0, len(names), PANELS_ACROSS)]
    numbers, values = [each.number for each in complete], list(map(last_value, complete))
    limits = drawn_range(values, minimized)
    data, layout = [], _grid(len(rows), len(rows[0]))
    for place, name in enumerate(names, 1):
        column = Column.of(name, complete)
        marker = {"size": 8, "color": numbers, "colorscale": BLUES, "line": {"color": "white", "width": 0.5}}
        if place == 1:
            marker |= {"showscale": True, "colorbar": _scale("Trial")}
        axes = {"xaxis": _name("x", place), "yaxis": _name("y", place)}
        data.append(
            _dots(column.places, np.clip(values, *limits), complete, marker) | axes | {"showlegend": False}
        )
        layout[_name("xaxis", place)] = _key_axis(column)
        outer = (place - 1) % PANELS_ACROSS == 0
        heights = _axis(metric if outer else "", range=padded(*limits), showticklabels=outer)
        layout[_name("yaxis", place)] = heights
    return data, layout | {"height": 60 + 280 * len(rows)}


def _importances(shares: Mapping[str, float]) -> Drawing:
    names, values = list(shares), list(shares.values())
    texts = [f"{value:.2f}" for value in values]
    bars = {"type": "bar", "orientation": "h", "x": values, "y": names, "text": texts, "hoverinfo": "skip"}
    axes = {"xaxis": _axis("Share"), "yaxis": _axis("", autorange="reversed", showgrid=False)}
    return [bars | {"textposition": "outside", "cliponaxis": False}], axes | {"height": 110 + 34 * len(names)}


def _contours(complete: Sequence[FrozenTrial], names: Sequence[str], metric: str, minimized: bool) -> Drawing:
    pairs = list(combinations(names, 2))
    low, high = drawn_range(list(map(last_value, complete)), minimized)
    best = (min if minimized else max)(complete, key=last_value)
    look = {"colorscale": BLUES, "reversescale": minimized}
    data: list[dict[str, Any]] = []
    layout = _grid(1, len(pairs), gap=0.4)
    for place, pair in enumerate(pairs, 1):
        both = [each for each in complete if all(name in each.params for name in pair)]
        values = np.clip(list(map(last_value, both)), low, high)
        x, y = (Column.of(name, both) for name in pair)
        means = smoothed(x, y, values, points=60)
        axes = {"xaxis": _name("x", place), "yaxis": _name("y", place), "showlegend": False}
        surface = {"type": "heatmap", "x": x.grid(60), "y": y.grid(60), "z": means, "zmin": low, "zmax": high}
        surface |= {"hoverinfo": "skip", "showscale": place == 1, "colorbar": _scale(metric)}
        edges: dict[str, Any] = {"color": [RED if each is best else "white" for each in both]}
        edges["width"] = [2 if each is best else 1 for each in both]
        marker = {"size": 8, "color": values, "cmin": low, "cmax": high, "line": edges, **look}
        data += [surface | look | axes, _dots(x.places, y.places, both, marker) | axes]
        layout |= {_name("xaxis", place): _key_axis(x), _name("yaxis", place): _key_axis(y)}
    return data, layout


def _timeline(shown: Sequence[FrozenTrial]) -> Drawing:
    data = []
    spans = [(each, each.datetime_start, each.datetime_complete or datetime.now()) for each in shown]
    for state in STATES:
        begun = [(each, begin, end - begin) for each, begin, end in spans if begin and each.state is state]
        bars: dict[str, Any] = {"type": "bar", "orientation": "h", "name": STATE_NAMES[state]}
        bars |= {"y": [each.number for each, _, _ in begun], "base": [begin for _, begin, _ in begun]}
        bars |= {"x": [1000 * lasted.total_seconds() for _, _, lasted in begun]}
        bars |= {"text": [_told(each) for each, _, _ in begun], "textposition": "none"}
        bars |= {"marker": {"color": STATE_COLOURS[state]}, "hovertemplate": "%{text}<extra></extra>"}
        data.append(bars)
    axes = {"xaxis": _axis("Time", type="date"), "yaxis": _axis("Trial", autorange="reversed")}
    return data, axes | {"barmode": "overlay", "height": 120 + min(14 * len(shown), 600)}


def _dots(x: Any, y: Any, trials: Sequence[FrozenTrial], marker: Mapping[str, Any]) -> dict[str, Any]:
    """Trials as points, which say what they are when pointed at."""
    words = {"text": list(map(_told, trials)), "hovertemplate": "%{text}<extra></extra>"}
    return {"type": "scatter", "mode": "markers", "x": x, "y": y, "marker": marker, **words}


def _told(trial: FrozenTrial) -> str:
    value = last_value(trial)
    first = f"trial {trial.number}, {STATE_NAMES[trial.state]}"
    lines = [first if math.isnan(value) else f"{first}: {value:.4f}"]
    lines += [f"{name} = {short_value(each)}" for name, each in trial.params.items()]
    return "<br>".join(map(html.escape, lines))


def _axis(title: str, **options: Any) -> dict[str, Any]:
    look = {"gridcolor": PALE, "zeroline": False, "automargin": True}
    return (
        {"title": {"text": title}} | look | {key: each for key, each in options.items() if each is not None}
    )


def _key_axis(column: Column) -> dict[str, Any]:
    """An axis in the key's own scale."""
    places, labels = column.ticks()
    ends = (-0.5, len(column.categories) - 0.5) if column.categories else None
    scale = "log" if column.log else "linear"
    return _axis(column.name, type=scale, range=ends, tickvals=places, ticktext=labels)


def _grid(rows: int, columns: int, gap: float = 0.12) -> dict[str, Any]:
    """Panels with axes of their own; the gap between two columns is a fraction of a panel's width."""
    sizes = {"rows": rows, "columns": columns, "xgap": gap, "ygap": 0.35}
    return {"grid": sizes | {"pattern": "independent"}}


def _name(axis: str, place: int) -> str:
    """Plotly's name of the first, second, ... axis: x, x2, ..."""
    return axis if place == 1 else f"{axis}{place}"


def _scale(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "thickness": 12, "outlinewidth": 0}
