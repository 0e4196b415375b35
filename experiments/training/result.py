"""Result of a run and its console summary."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from darkroom.lightning_modules.metrics.names import METRIC_NAMES, TUNED_METRICS

from ..evaluation.calibration import summary
from ..tracking.run import RunRecord


@dataclass(frozen=True)
class Result:
    """What came of a run: its last metrics, the chosen epoch, and the history of each metric."""

    metrics: dict[str, float]
    best_epoch: int
    record: RunRecord | None


def print_result(result: Result) -> None:
    """The metrics of the chosen epoch and the run id, last on the screen."""
    table = Table(title=f"chosen: epoch {result.best_epoch}" if result.best_epoch else "untrained")
    table.add_column("metric")
    stages = [stage for stage in ("best", "test") if f"{stage}/loss" in result.metrics]
    for stage in stages:
        table.add_column("validation" if stage == "best" else stage, justify="right")
    for name in (*METRIC_NAMES, *TUNED_METRICS):
        values = [result.metrics.get(f"{stage}/{name}") for stage in stages]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    console = Console()
    console.print(table)
    if (calibration := summary(result.metrics)) is not None:
        console.print(calibration, highlight=False)
    if result.record is not None:
        console.print(f"run {result.record.run_id}  ({result.record.name})", highlight=False)
