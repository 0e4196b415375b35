"""What a sweep leaves behind: figures, tables and an interactive page, of what its trials suffice for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from ...config.search_space.settings import SweepSettings
from ..study.trials import (
    STATE_NAMES,
    complete_trials,
    counted_trials,
    curve,
    epochs_trained,
    finite_points,
    fold_values,
    last_value,
    ranked,
    short_names,
    varied_keys,
)
from .leaderboard import count_states, leaderboard_cells, savings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_FOR_IMPORTANCE = 8  # complete trials below which fANOVA's order of keys is mostly chance
MAX_IN_CONTOURS = 3  # keys, so three pairs


def write_report(
    study: optuna.Study, settings: SweepSettings, folder: Path, max_epochs: int, live: bool = False
) -> None:
    """Writes figures/*.png, tables/* and sweep.html into a folder: what the trials so far suffice for.

    With `live`, only what is cheap enough to be written again and again: the leaderboard, the history of
    the search and the curves of all trials. `max_epochs` are those of a whole trial, of all its folds.
    """
    from ...reporting.style import save  # matplotlib and plotly are not needed before the first report

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
    if live:
        return
    from .html_report import render_page

    trial_table(trials, settings).to_csv(folder / "tables" / "trials.csv", index=False)
    summary = f"{count_states(trials)}; {savings(study, max_epochs)}"
    contoured = contour_names(complete_trials(shown), shares)
    page = render_page(study.study_name, summary, settings, shown, shares, contoured, finite_points(study))
    (folder / "sweep.html").write_text(page)


def draw_figures(
    study: optuna.Study,
    settings: SweepSettings,
    shown: Sequence[FrozenTrial],
    shares: Mapping[str, float],
    live: bool = False,
) -> Iterator[tuple[str, Figure]]:
    """The figures that the trials suffice for, by name; the last bars of a timeline end now."""
    from . import plots

    metric, minimized = settings.metric, settings.direction == "minimize"
    complete = complete_trials(shown)
    if complete:
        yield "history", plots.history(shown, metric, minimized)
    if any(trial.intermediate_values for trial in shown):
        axis = "Folds" if settings.folds else "Epoch"
        yield "intermediate_values", plots.curves(shown, metric, minimized, axis)
    if live:
        return
    if len(complete) > 1 and any(trial.params for trial in complete):
        yield "parallel_coordinates", plots.parallel_coordinates(shown, metric, minimized)
        yield "slices", plots.slices(shown, metric, minimized)
    if shares:
        yield "importances", plots.importances(shares, metric)
    if names := contour_names(complete, shares):
        yield "contours", plots.contours(shown, metric, minimized, names)
    if any(trial.datetime_start for trial in shown):
        yield "timeline", plots.timeline(shown, datetime.now())
    points = finite_points(study)
    if settings.objectives and points:
        names = [metric, *settings.objectives]
        yield (
            "pareto_front",
            plots.pareto_front(list(points), np.array(list(points.values())), names, minimized),
        )


def trial_table(trials: Sequence[FrozenTrial], settings: SweepSettings) -> pd.DataFrame:
    """One row a trial in full: numbers unrounded, keys dotted, times local."""
    keys = varied_keys(trials, settings)
    records = []
    for trial in trials:
        values = trial.values if trial.state is TrialState.COMPLETE else [last_value(trial)]
        record = {"trial": trial.number, "state": STATE_NAMES[trial.state]}
        record |= dict(zip([settings.metric, *settings.objectives], values, strict=False))
        record |= {f"fold_{fold}": value for fold, value in enumerate(fold_values(trial))}
        record |= {"epochs": epochs_trained(trial), "seconds": trial.user_attrs.get("seconds")}
        record |= {"started_at": trial.datetime_start, "ended_at": trial.datetime_complete}
        record |= {name: trial.user_attrs.get(name) for name in ("mlflow_run", "error")}
        records.append(record | {key: trial.params.get(key) for key in keys})
    folds = [f"fold_{fold}" for fold in range(settings.folds or 0)]
    columns = ["trial", "state", settings.metric, *settings.objectives, *folds, "epochs", "seconds"]
    columns += ["started_at", "ended_at", "mlflow_run", "error", *keys]
    return pd.DataFrame(records, columns=columns)


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
    from .axes import Column

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
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # seconds to import

    study = _GivenTrials(scaled, settings.direction)
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))


def contour_names(complete: Sequence[FrozenTrial], shares: Mapping[str, float]) -> list[str]:
    """The two or three keys to draw against each other: the most important, or else the recipe's first.

    None where fewer than two vary, or fewer than four trials are complete.
    """
    names = list(shares) or (_varied_by_all(complete) if len(complete) >= 4 else [])
    return names[:MAX_IN_CONTOURS] if len(names) > 1 else []


class _GivenTrials(optuna.Study):
    """A study of given trials: Optuna weighs keys of whole studies only, refused proposals included."""

    def __init__(self, trials: Sequence[FrozenTrial], direction: Any) -> None:
        storage = optuna.storages.InMemoryStorage()
        name = optuna.create_study(direction=direction, storage=storage).study_name
        super().__init__(name, storage)
        self._given = list(trials)

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return [trial for trial in self._given if states is None or trial.state in states]


def _varied_by_all(complete: Sequence[FrozenTrial]) -> list[str]:
    """The keys that all of these trials have and that differ among them."""
    common = [name for name in complete[0].params if all(name in trial.params for trial in complete)]
    return [name for name in common if len({str(trial.params[name]) for trial in complete}) > 1]
