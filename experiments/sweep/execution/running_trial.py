"""State of a running trial."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import optuna

from ...tracking.run import RunRecord
from ..report.live_display import RunningTrial
from .messages import EpochReport, FoldReport, TrialRequest, TrialResult
from .resources import Slot
from .worker import Worker


@dataclass
class Running:
    """A trial under way."""

    trial: optuna.Trial
    record: RunRecord | None
    lease: int
    slot: Slot
    task: TrialRequest
    worker: Worker
    started_at: float = field(default_factory=time.time)
    fold: int | None = None
    epoch: int = 0
    value: float | None = None
    deaths: int = 0

    def heed(self, report: EpochReport | FoldReport) -> None:
        """Takes in how far it is."""
        self.fold, self.value, self.deaths = report.fold, report.value, 0
        if isinstance(report, EpochReport):
            self.epoch = report.epoch

    def shown(self, max_epochs: int) -> RunningTrial:
        """As the live table has it."""
        return RunningTrial(
            number=self.trial.number,
            described=self.task.described,
            fold=self.fold,
            epoch=self.epoch,
            max_epochs=max_epochs,
            value=self.value,
            started_at=self.started_at,
        )

    def told(self, outcome: TrialResult) -> str:
        """The line that stays of it."""
        number, described = self.trial.number, self.task.described
        if outcome.stopped:
            fold = "" if self.fold is None else f" of fold {self.fold}"
            return f"trial {number}  stopped after epoch {self.epoch}{fold}; it can go on"
        if outcome.error is not None:
            return f"trial {number}  failed: {outcome.error}  ({described})"
        line = f"trial {number}  {self.task.metric} {outcome.values[0]:.4f}"
        if outcome.pruned_epoch is not None:
            line += f", pruned after epoch {outcome.pruned_epoch}"
        if outcome.pruned_folds is not None:
            line += f", pruned after {outcome.pruned_folds} of {self.task.folds} folds"
        return f"{line}  ({described})"
