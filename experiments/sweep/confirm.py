"""Whether the best of a search is good, or was lucky: its top configurations again, on fresh seeds."""

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
from scipy import stats

from datamodules.randomness import derive_seed
from experiments.sweep.ranking import describe, ranked
from experiments.sweep.space import SweepSettings, overrides
from experiments.trainer import is_minimized

FRESH = 2**32  # apart from any trial's number, so that no seed of the search comes again


class Confirmation:
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
        half_width: Of the 95 % interval of the mean (Student's t); infinite for a single value.
    """

    trial: FrozenTrial
    values: tuple[float, ...]
    mean: float
    half_width: float

    @classmethod
    def of(cls, trial: FrozenTrial, values: Sequence[float]) -> Confirmed:
        count = len(values)
        half_width = math.inf
        if count > 1:
            error = float(np.std(values, ddof=1)) / math.sqrt(count)
            half_width = float(stats.t.ppf(0.975, count - 1)) * error
        return cls(trial, tuple(values), float(np.mean(values)), half_width)


def confirmed(plan: Confirmation) -> list[Confirmed]:
    """The configurations that trained on any fresh seed, best mean first."""
    values: dict[int, list[float]] = {number: [] for number in plan.candidates}
    for trial in plan.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        values[trial.params["configuration"]].append(trial.values[0])
    found = [Confirmed.of(plan.candidates[number], each) for number, each in values.items() if each]
    sign = 1 if is_minimized(plan.settings.metric) else -1
    return sorted(found, key=lambda each: (-len(each.values), sign * each.mean))


def optimism(results: Sequence[Confirmed], best: FrozenTrial, settings: SweepSettings) -> float | None:
    """By how much the search's best value flatters its configuration; None where that failed to train.

    The best of many noisy values is best partly by luck, and only fresh seeds show how much.
    """
    sign = -1 if is_minimized(settings.metric) else 1
    means = [each.mean for each in results if each.trial.number == best.number]
    return sign * (best.values[0] - means[0]) if means else None


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
