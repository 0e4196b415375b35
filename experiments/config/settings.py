"""Small recipe sections: tracking and claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darkroom.lightning_modules.metrics.names import is_minimized


@dataclass(frozen=True)
class ClaimedValue:
    """A number that someone reports.

    Args:
        value: The number.
        tolerance: How far a mean over seeds may lie from it and still count as the same.
        at_least: The number is a lower bound: more counts as the same too.
        at_most: The number is an upper bound, such as of a loss: less counts as the same too.
    """

    value: float
    tolerance: float = 0.01
    at_least: bool = False
    at_most: bool = False


@dataclass(frozen=True)
class Claim:
    """What a recipe promises.

    Args:
        metrics: Reported values by metric name, such as test/accuracy.
        seeds: Seeds to average over.
        source: Paper, article or page that reports them.
        measured_at: Record version at which we measured a claim of our own; null for what others report.
    """

    metrics: Mapping[str, ClaimedValue]
    seeds: Sequence[int] = (0, 1, 2)
    source: str = ""
    measured_at: int | None = None

    def __post_init__(self) -> None:
        for metric, claimed in self.metrics.items():
            wrong, right = ("at_least", "at_most") if is_minimized(metric) else ("at_most", "at_least")
            if getattr(claimed, wrong):
                better = "lower" if is_minimized(metric) else "higher"
                raise ValueError(
                    f"claim.metrics gives {metric} {wrong}: true, which would accept any worse value, as "
                    f"{better} is better; set {right}: true, or leave both out"
                )


@dataclass(frozen=True)
class TrackingSettings:
    """Where a run is recorded: the store that MLFLOW_TRACKING_URI names, else sqlite:///mlflow.db.

    Args:
        enabled: Record in MLflow; with false no store is touched and nothing is kept.
        run_name: Name of the run; null takes the overridden keys, or the seed.
        system_metrics: Record how busy the machine is, every ten seconds, as MLflow's `system/...`. The
            trials of a sweep do without: in a sweep its controller alone speaks to MLflow.
    """

    enabled: bool = True
    run_name: str | None = None
    system_metrics: bool = True
