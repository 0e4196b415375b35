"""Re-trains the best configurations on fresh seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from darkroom.datamodules.messages import some
from darkroom.datamodules.seeding import derive_seed
from darkroom.lightning_modules.metrics.names import is_minimized

from ...config.search_space.settings import SweepSettings
from ...config.search_space.space import overrides
from ...evaluation.significance import SIGNIFICANCE, holm, t_interval
from ...evaluation.two_way_test import two_way_test
from ...tracking.prediction_artifacts import read_outcome
from ...tracking.store import Store
from .trials import describe, ranked

FRESH = 2**32  # apart from any trial's number, so that no seed of the search comes again


class ConfirmationPlan:
    """The trials that train each of the search's best configurations with the same few fresh seeds.

    They are kept in a study of their own, so that they survive what the search's trials survive.
    Where the search judged trials by their mean over folds, each seed is judged so too, on the same folds:
    only the same measure tells how lucky the search's best was. That its images were chosen on stays hidden.
    """

    role = "confirmation"

    def __init__(self, search: optuna.Study, storage: RDBStorage, settings: SweepSettings, seed: int) -> None:
        assert settings.confirm is not None  # the sweep has looked
        complete = [trial for trial in ranked(search) if trial.state is TrialState.COMPLETE]
        self.candidates = {trial.number: trial for trial in complete[: settings.confirm.top]}
        self.settings = settings
        self.seed = seed
        self.total = len(self.candidates) * settings.confirm.seeds
        chosen = "-".join(map(str, self.candidates))
        self.study = optuna.create_study(
            study_name=f"{search.study_name}/confirmation of {chosen}",
            storage=storage,
            direction=settings.direction,
            sampler=optuna.samplers.RandomSampler(seed=0),  # draws nothing: all points are given
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        for replicate in range(settings.confirm.seeds):
            for number in self.candidates:
                point = {"configuration": number, "replicate": replicate}
                self.study.enqueue_trial(point, skip_if_exists=True)

    def draw(self, trial: optuna.Trial) -> bool:
        assert self.settings.confirm is not None
        trial.suggest_categorical("configuration", list(self.candidates))
        trial.suggest_int("replicate", 0, self.settings.confirm.seeds)
        return True

    def overrides(self, trial: FrozenTrial) -> dict[str, str]:
        configuration = self.candidates[trial.params["configuration"]]
        seed = derive_seed(self.seed, FRESH, trial.params["replicate"]) % 2**31
        return {**overrides(configuration.params, self.settings), "seed": str(seed)}

    def report(self, trial: optuna.Trial, step: int, value: float) -> bool:
        trial.report(value, step)
        return False


@dataclass(frozen=True)
class Confirmed:
    """One configuration's metric over fresh seeds.

    Attributes:
        trial: The search's trial that found it.
        values: The validation metric for each seed.
        mean: Of the values.
        half_width: Of the 95 % interval of the mean (Student's t); infinite for a single value, and where
            values tie.
        runs: The MLflow run of each value, where it is recorded.
    """

    trial: FrozenTrial
    values: tuple[float, ...]
    mean: float
    half_width: float
    runs: tuple[str, ...] = ()

    @classmethod
    def of(cls, trial: FrozenTrial, values: Sequence[float], runs: Sequence[str] = ()) -> Confirmed:
        mean = float(np.mean(values))
        return cls(trial, tuple(values), mean, t_interval(values).high - mean, tuple(runs))


def confirmed(plan: ConfirmationPlan) -> list[Confirmed]:
    """The configurations that trained on any fresh seed, best mean first."""
    trials: dict[int, list[FrozenTrial]] = {number: [] for number in plan.candidates}
    for trial in plan.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        trials[trial.params["configuration"]].append(trial)
    found = [
        Confirmed.of(
            plan.candidates[number],
            [trial.values[0] for trial in each],
            [trial.user_attrs["mlflow_run"] for trial in each if "mlflow_run" in trial.user_attrs],
        )
        for number, each in trials.items()
        if each
    ]
    sign = 1 if is_minimized(plan.settings.metric) else -1
    return sorted(found, key=lambda each: (-len(each.values), sign * each.mean))


def optimism(results: Sequence[Confirmed], best: FrozenTrial, settings: SweepSettings) -> float | None:
    """By how much the search's best value flatters its configuration; None where that failed to train.

    The best of many noisy values is best partly by luck, and only fresh seeds show how much.
    """
    sign = -1 if is_minimized(settings.metric) else 1
    means = [each.mean for each in results if each.trial.number == best.number]
    return sign * (best.values[0] - means[0]) if means else None


def told_apart(results: Sequence[Confirmed], settings: SweepSettings, store: Store | None) -> list[str]:
    """Which configurations the one with the best mean would beat with other seeds and on other images too.

    Sentences by the two-way test, with p-values corrected for the number of configurations by Holm; none
    where nothing was recorded, or where predictions do not tell the metric.
    """
    from ...evaluation.bootstrap import unit_scores  # takes seconds to import, and is not needed before

    runs = [len(each.runs) == len(each.values) > 1 for each in results]
    if store is None or len(results) < 2 or not all(runs):
        return []
    outcomes = [[read_outcome(store.run(run), "val") for run in each.runs] for each in results]
    scores = unit_scores(
        [outcome for each in outcomes for outcome in each], settings.metric.partition("/")[2]
    )
    if scores is None:
        return []
    columns = np.split(scores, np.cumsum([len(each) for each in outcomes])[:-1], axis=1)
    best, *others = results
    tests = [
        two_way_test((best.values, other.values), (columns[0], theirs))
        for other, theirs in zip(others, columns[1:], strict=True)
    ]
    p_values = holm([test.p_value for test in tests])
    beaten: list[str] = []
    alike: list[str] = []
    for other, p_value in zip(others, p_values, strict=True):
        (beaten if p_value < SIGNIFICANCE else alike).append(f"{other.trial.number} (p {p_value:.2g})")
    name, rule = f"trial {best.trial.number}", "over other seeds and images (two-way test, Holm, 0.05)"
    told = [f"{name} is better than {some(beaten, 10)} {rule}"] if beaten else []
    if alike:
        told.append(f"{name} has the best mean, but is not told apart from {some(alike, 10)} {rule}")
    return told


def confirmation_table(results: Sequence[Confirmed], settings: SweepSettings) -> Table:
    """The ranking by mean, with what the search had said."""
    seeds = max(len(each.values) for each in results)
    folds = "" if settings.folds is None else f", each over the same {settings.folds} folds"
    table = Table("trial", title=f"confirmed on {seeds} fresh seeds{folds} (95 % intervals of the mean)")
    for column in (f"{settings.metric} in the search", "on fresh seeds"):
        table.add_column(column, justify="right")
    table.add_column("configuration")
    for each in results:
        interval = (
            f"{each.mean:.4f} ± {each.half_width:.4f}"
            if math.isfinite(each.half_width)
            else f"{each.mean:.4f}"
        )
        table.add_row(
            str(each.trial.number), f"{each.trial.values[0]:.4f}", interval, describe(each.trial.params)
        )
    return table


def confirmation_frame(results: Sequence[Confirmed]) -> pd.DataFrame:
    """The same as numbers, one row for each configuration."""
    rows: list[Mapping[str, Any]] = [
        {
            "trial": each.trial.number,
            "search": each.trial.values[0],
            "mean": each.mean,
            "half_width_95": each.half_width,
            "values": json.dumps(each.values),
            **each.trial.params,
        }
        for each in results
    ]
    return pd.DataFrame(rows)
