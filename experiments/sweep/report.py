"""What a sweep shows of itself: ranking, leaderboard, what pruning saved, figures, tables, one page."""

from __future__ import annotations

import copy
import html
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from experiments.sweep.space import SweepSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
STATE_NAMES = {TrialState.FAIL: "failed"} | {
    state: state.name.lower() for state in STATES if state.name != "FAIL"
}
MIN_FOR_IMPORTANCE = 8  # complete trials below which fANOVA's order of keys is mostly chance
MAX_IN_CONTOURS = 3  # keys, so three pairs
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em; }}
h2 {{ margin: 2em 0 0; }} p {{ color: #707070; margin: 0.2em 0; }}</style>
<script>{script}</script></head><body>
{body}
</body></html>
"""


# Trials ------------------------------------------------------------------------------------------


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


def curve(trial: FrozenTrial) -> dict[int, float]:
    """The metric after each epoch, in order; with several objectives Optuna keeps it as an attribute."""
    points = trial.intermediate_values or trial.user_attrs.get("curve", {})
    return {int(epoch): float(points[epoch]) for epoch in sorted(points, key=int)}


def last_value(trial: FrozenTrial) -> float:
    """A complete trial's metric, or else what it reported last; NaN when nothing."""
    if trial.state is TrialState.COMPLETE:
        return float(trial.values[0])
    return next(reversed(curve(trial).values()), math.nan)


def epochs_trained(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get("epochs", max(curve(trial), default=0)))


@dataclass(frozen=True)
class Savings:
    """What pruning spared: the epochs and seconds that pruned trials did not train.

    Attributes:
        all_epochs: What all finished trials would have trained without pruning.
    """

    epochs: int
    all_epochs: int
    seconds: float

    @property
    def share(self) -> float:
        """Of all epochs, as a fraction."""
        return self.epochs / self.all_epochs if self.all_epochs else 0.0

    def __str__(self) -> str:
        """
        >>> str(Savings(epochs=212, all_epochs=480, seconds=212.0))
        'pruning saved 212 of 480 epochs (44 %), about 3.5 min'
        """
        text = f"pruning saved {self.epochs} of {self.all_epochs} epochs ({self.share:.0%})".replace(
            "%", " %"
        )
        return f"{text}, about {_duration(self.seconds)}" if self.seconds else text


def savings(study: optuna.Study, max_epochs: int) -> Savings:
    """What pruning saved if each pruned trial had trained `max_epochs` at its own seconds an epoch."""
    finished = ranked(study)
    trained = sum(map(epochs_trained, finished))
    saved, seconds = 0, 0.0
    for trial in finished:
        if trial.state is TrialState.PRUNED:
            epochs = epochs_trained(trial)
            saved += max_epochs - epochs
            seconds += trial.user_attrs.get("seconds", 0.0) / max(epochs, 1) * (max_epochs - epochs)
    return Savings(saved, trained + saved, seconds)


# Words -------------------------------------------------------------------------------------------


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


def count_states(trials: Sequence[FrozenTrial]) -> str:
    """How many there are, such as "24 trials: 14 complete, 9 pruned, 1 failed"."""
    counts = Counter(trial.state for trial in trials)
    parts = [f"{counts[state]} {STATE_NAMES[state]}" for state in STATES if counts[state]]
    total = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
    return f"{total}: {', '.join(parts)}" if parts else total


def leaderboard(study: optuna.Study, settings: SweepSettings, rows: int = 10) -> Table:
    """The best trials, and how many there are of each state."""
    table = Table(title=study.study_name, caption=count_states(counted_trials(study)))
    header, body = leaderboard_cells(study, settings, rows)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 1 else "right", overflow="fold")
    for index, (row, trial) in enumerate(zip(body, ranked(study), strict=False)):
        finished = trial.state is TrialState.COMPLETE
        table.add_row(*row, style="bold" if finished and index == 0 else None if finished else "dim")
    return table


def leaderboard_cells(
    study: optuna.Study, settings: SweepSettings, rows: int
) -> tuple[list[str], list[list[str]]]:
    """The leaderboard's header and rows, as text."""
    trials = ranked(study)[:rows]
    names = short_names(_keys(trials, settings))
    body = []
    for trial in trials:
        value = last_value(trial)
        further = (
            trial.values[1:] if trial.state is TrialState.COMPLETE else [math.nan] * len(settings.objectives)
        )
        cells = [str(trial.number), STATE_NAMES[trial.state], "" if math.isnan(value) else f"{value:.4f}"]
        cells += ["" if math.isnan(each) else f"{each:,.6g}" for each in further]
        body.append(
            [*cells, str(epochs_trained(trial)), *(short_value(trial.params.get(key, "")) for key in names)]
        )
    return ["trial", "state", settings.metric, *settings.objectives, "epochs", *names.values()], body


def trial_table(trials: Sequence[FrozenTrial], settings: SweepSettings) -> pd.DataFrame:
    """One row a trial in full: numbers unrounded, keys dotted, times local."""
    keys = _keys(trials, settings)
    records = []
    for trial in trials:
        values = trial.values if trial.state is TrialState.COMPLETE else [last_value(trial)]
        record = {"trial": trial.number, "state": STATE_NAMES[trial.state]}
        record |= dict(zip([settings.metric, *settings.objectives], values, strict=False))
        record |= {"epochs": epochs_trained(trial), "seconds": trial.user_attrs.get("seconds")}
        record |= {"started_at": trial.datetime_start, "ended_at": trial.datetime_complete}
        record |= {name: trial.user_attrs.get(name) for name in ("mlflow_run", "error")}
        records.append(record | {key: trial.params.get(key) for key in keys})
    columns = ["trial", "state", settings.metric, *settings.objectives, "epochs", "seconds"]
    columns += ["started_at", "ended_at", "mlflow_run", "error", *keys]
    return pd.DataFrame(records, columns=columns)


# Files -------------------------------------------------------------------------------------------


def write_report(
    study: optuna.Study, settings: SweepSettings, folder: Path, max_epochs: int, live: bool = False
) -> None:
    """Writes figures/*.png, tables/* and sweep.html into a folder: what the trials so far suffice for.

    With `live`, only what is cheap enough to be written again and again: the leaderboard, the history of
    the search and the curves of all trials.
    """
    from experiments.figures import save  # matplotlib is not needed before the first report

    for name in ("figures", "tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    trials = counted_trials(study)
    header, body = leaderboard_cells(study, settings, rows=10)
    lines = [header, ["---"] * len(header), *body]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    (folder / "tables" / "leaderboard.md").write_text(f"{table}\n\n{count_states(trials)}\n")
    trial_table(ranked(study), settings).to_csv(folder / "tables" / "leaderboard.csv", index=False)
    shown = shown_trials(study)
    shares = {} if live else key_importances(shown, settings)
    for name, figure in draw_figures(study, settings, shown, shares, live):
        save(figure, folder / "figures" / f"{name}.png")
    if not live:
        trial_table(trials, settings).to_csv(folder / "tables" / "trials.csv", index=False)
        page = render_page(
            study, settings, shown, shares, summary=f"{count_states(trials)}; {savings(study, max_epochs)}"
        )
        (folder / "sweep.html").write_text(page)


def draw_figures(
    study: optuna.Study,
    settings: SweepSettings,
    shown: Sequence[FrozenTrial],
    shares: Mapping[str, float],
    live: bool = False,
) -> Iterator[tuple[str, Figure]]:
    """The figures that the trials suffice for, by name; the last bars of a timeline end now."""
    from experiments.sweep import figures

    metric, minimized = settings.metric, settings.direction == "minimize"
    complete = figures.complete_trials(shown)
    if complete:
        yield "history", figures.history(shown, metric, minimized)
    if any(trial.intermediate_values for trial in shown):
        yield "intermediate_values", figures.curves(shown, metric, minimized)
    if live:
        return
    if len(complete) > 1 and any(trial.params for trial in complete):
        yield "parallel_coordinates", figures.parallel_coordinates(shown, metric, minimized)
        yield "slices", figures.slices(shown, metric, minimized)
    if shares:
        yield "importances", figures.importances(shares, metric)
    if names := contour_names(complete, shares):
        yield "contours", figures.contours(shown, metric, minimized, names)
    if any(trial.datetime_start for trial in shown):
        yield "timeline", figures.timeline(shown, datetime.now())
    points = _finite_points(study)
    if settings.objectives and points:
        names = [metric, *settings.objectives]
        yield (
            "pareto_front",
            figures.pareto_front(list(points), np.array(list(points.values())), names, minimized),
        )


def shown_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Copies of the counted trials as figures show them: judged by the first objective, keys short."""
    trials = counted_trials(study)
    names = short_names({key: None for trial in trials for key in trial.params})
    shown = []
    for trial in trials:
        shown.append(copy.copy(trial))
        shown[-1].values = trial.values[:1] if trial.state is TrialState.COMPLETE else None
        shown[-1].intermediate_values = curve(trial)
        shown[-1].params = {names[key]: value for key, value in trial.params.items()}
        shown[-1].distributions = {names[key]: each for key, each in trial.distributions.items()}
    return shown


def key_importances(shown: Sequence[FrozenTrial], settings: SweepSettings) -> dict[str, float]:
    """Each key's share of the metric's variance by fANOVA (Hutter et al. 2014), the largest first.

    Of the keys that all complete trials have; none where fewer than two vary, where fewer than eight
    trials are complete, or where all have the same value.
    """
    from experiments.sweep.figures import Column, complete_trials

    complete = complete_trials(shown)
    if len(complete) < MIN_FOR_IMPORTANCE or len({trial.values[0] for trial in complete}) == 1:
        return {}
    varied = _varied_by_all(complete)
    if len(varied) < 2:
        return {}
    scaled = []
    for trial in complete:
        scaled.append(copy.copy(trial))
        scaled[-1].params, scaled[-1].distributions = {}, {}
    for name in varied:
        column = Column.of(name, complete)
        # Optuna averages over a range as it stands, so over the upper decade of a logarithmic one.
        unit = FloatDistribution(0, 1)
        categories = CategoricalDistribution(tuple(range(len(column.categories) or 1)))
        for trial, place, fraction in zip(scaled, column.places, column.unit(column.places), strict=True):
            trial.params[name] = int(place) if column.categories else float(fraction)
            trial.distributions[name] = categories if column.categories else unit
    study = _GivenTrials(scaled, settings.direction)
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))


def contour_names(complete: Sequence[FrozenTrial], shares: Mapping[str, float]) -> list[str]:
    """The two or three keys to draw against each other: the most important, or else the recipe's first.

    None where fewer than two vary, or fewer than four trials are complete.
    """
    names = list(shares) or (_varied_by_all(complete) if len(complete) >= 4 else [])
    return names[:MAX_IN_CONTOURS] if len(names) > 1 else []


def render_page(
    study: optuna.Study,
    settings: SweepSettings,
    shown: Sequence[FrozenTrial],
    shares: Mapping[str, float],
    summary: str,
) -> str:
    """All interactive figures as one HTML page, which needs no network."""
    from plotly.offline import get_plotlyjs

    parts = [f"<h1>{html.escape(study.study_name)}</h1><p>{html.escape(summary)}</p>"]
    for title, caption, figure in _interactive_figures(study, settings, shown, shares):
        figure.update_layout(template="plotly_white", title=None, margin={"t": 30})
        drawing = figure.to_html(full_html=False, include_plotlyjs=False)
        parts.append(f"<h2>{title}</h2><p>{html.escape(caption)}</p>{drawing}")
    return PAGE.format(title=html.escape(study.study_name), script=get_plotlyjs(), body="\n".join(parts))


def _interactive_figures(
    study: optuna.Study, settings: SweepSettings, shown: Sequence[FrozenTrial], shares: Mapping[str, float]
) -> Iterator[tuple[str, str, Any]]:
    """Heading, caption and plotly figure of what the trials suffice for."""
    import plotly.graph_objects as go
    from optuna import visualization as draw

    from experiments.sweep.figures import complete_trials

    metric = settings.metric
    view = _GivenTrials(shown, settings.direction)
    complete = complete_trials(shown)
    if complete:
        # Optuna's own history takes a trial's number for its place in the list.
        numbers, values = zip(*((trial.number, trial.values[0]) for trial in complete), strict=True)
        best = itertools.accumulate(values, min if settings.direction == "minimize" else max)
        dots = go.Scatter(x=numbers, y=values, mode="markers", name="complete")
        line = go.Scatter(x=numbers, y=list(best), line_shape="hv", name="best so far")
        yield "History", f"{metric} of each complete trial.", go.Figure([dots, line])
    if any(trial.intermediate_values for trial in shown):
        yield "Curves", f"{metric} after each epoch.", draw.plot_intermediate_values(view)
    points = _finite_points(study)
    if settings.objectives and points:
        names = [metric, *settings.objectives]
        front = _GivenTrials([t for t in counted_trials(study) if t.number in points], *study.directions)
        yield (
            "Pareto front",
            "Trials that no other surpasses.",
            draw.plot_pareto_front(front, target_names=names),
        )
    if len(complete) > 1 and any(trial.params for trial in complete):
        common = [name for name in complete[0].params if all(name in trial.params for trial in complete)]
        if common:
            caption = "A line is a trial; drag along an axis to select. Keys that all trials have."
            yield (
                "Parallel coordinates",
                caption,
                draw.plot_parallel_coordinate(view, params=common, target_name=metric),
            )
        yield "Slices", f"{metric} over each key.", draw.plot_slice(view, target_name=metric)
    if shares:
        bars = go.Figure(go.Bar(x=list(shares.values()), y=list(shares), orientation="h"))
        bars.update_yaxes(autorange="reversed")
        yield "Importance", f"Share of the variance of {metric} (fANOVA).", bars
    if names := contour_names(complete, shares):
        yield (
            "Contours",
            "The most important keys.",
            draw.plot_contour(view, params=names, target_name=metric),
        )
    if any(trial.datetime_start for trial in shown):
        yield "Timeline", "When each trial ran.", draw.plot_timeline(view)


class _GivenTrials(optuna.Study):
    """A study of given trials: Optuna draws whole studies only, and would count refused proposals."""

    def __init__(self, trials: Sequence[FrozenTrial], *directions: Any) -> None:
        storage = optuna.storages.InMemoryStorage()
        name = optuna.create_study(directions=directions, storage=storage).study_name
        super().__init__(name, storage)
        self._given = list(trials)

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return [trial for trial in self._given if states is None or trial.state in states]


def _finite_points(study: optuna.Study) -> dict[int, list[float]]:
    """Complete trials' objectives by number, where all are finite."""
    complete = [trial for trial in counted_trials(study) if trial.state is TrialState.COMPLETE]
    return {each.number: each.values for each in complete if all(map(math.isfinite, each.values))}


def _varied_by_all(complete: Sequence[FrozenTrial]) -> list[str]:
    """The keys that all of these trials have and that differ among them."""
    common = [name for name in complete[0].params if all(name in trial.params for trial in complete)]
    return [name for name in common if len({str(trial.params[name]) for trial in complete}) > 1]


def _keys(trials: Sequence[FrozenTrial], settings: SweepSettings) -> list[str]:
    """The keys that trials vary, in the recipe's order."""
    used = dict.fromkeys(key for trial in trials for key in trial.params)
    return [
        *(key for key in settings.space if key in used),
        *(key for key in used if key not in settings.space),
    ]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
