"""Leaderboard and pruning savings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from ..study.trials import (
    STATE_NAMES,
    STATES,
    counted_trials,
    epochs_trained,
    fold_values,
    last_value,
    ranked,
    short_names,
    short_value,
    varied_keys,
)

if TYPE_CHECKING:
    from ...config.search_space.settings import SweepSettings


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
        """The saved epochs as a fraction of all epochs."""
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
    """What pruning saved if each pruned trial had trained `max_epochs`, of all folds, at its own pace."""
    finished = ranked(study)
    trained = sum(map(epochs_trained, finished))
    saved, seconds = 0, 0.0
    for trial in finished:
        if trial.state is TrialState.PRUNED:
            epochs = epochs_trained(trial)
            saved += max_epochs - epochs
            seconds += trial.user_attrs.get("seconds", 0.0) / max(epochs, 1) * (max_epochs - epochs)
    return Savings(saved, trained + saved, seconds)


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
    names = short_names(varied_keys(trials, settings))
    body = []
    for trial in trials:
        value = last_value(trial)
        further = (
            trial.values[1:] if trial.state is TrialState.COMPLETE else [math.nan] * len(settings.objectives)
        )
        cells = [str(trial.number), STATE_NAMES[trial.state], "" if math.isnan(value) else f"{value:.4f}"]
        cells += ["" if math.isnan(each) else f"{each:,.6g}" for each in further]
        cells += [str(len(fold_values(trial)))] if settings.folds else []
        body.append(
            [*cells, str(epochs_trained(trial)), *(short_value(trial.params.get(key, "")) for key in names)]
        )
    steps = ["folds", "epochs"] if settings.folds else ["epochs"]
    return ["trial", "state", settings.metric, *settings.objectives, *steps, *names.values()], body


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
