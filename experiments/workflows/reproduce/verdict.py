"""A claim and what the seeds gave: the verdict, as a row of the table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from ...config.settings import ClaimedValue
from ...evaluation.significance import Interval, equivalence, t_interval
from ...tracking.record_version import version_label
from .seed_runs import Seed

HEADER = (
    "recipe",
    "claim",
    "source",
    "obtained [95 %]",
    "verdict",
    "seeds",
    "time of a run",
    "record version",
)
NOT_ON_SCREEN = ("source", "seeds", "record version")  # too much for a terminal


@dataclass(frozen=True)
class Reproduction:
    """One claimed metric of a recipe.

    Attributes:
        recipe: Its name.
        source: Who claims it.
        metric: Such as test/accuracy.
        claimed: Value, tolerance, and whether more, or less, counts too.
        values: What the seeds gave.
        seconds: What a run's epochs took, the median of the seeds.
        verdict: *reproduced*, *not reproduced*, *underpowered*, or why there is none.
        versions: The record versions of the seeds' runs.
    """

    recipe: str
    source: str
    metric: str
    claimed: ClaimedValue
    values: Sequence[float]
    seconds: float
    verdict: str
    versions: Sequence[str] = ()

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of the header."""
        value, tolerance = self._told(self.claimed.value), self._told(self.claimed.tolerance)
        bound = "at least " if self.claimed.at_least else "at most " if self.claimed.at_most else ""
        claim = f"{bound}{value} (± {tolerance}) {self.metric}"
        seeds = ", ".join(map(self._number, self.values)) or "-"
        versions = ", ".join(sorted(set(self.versions))) or "-"
        told = (self._obtained(), self.verdict, seeds, self._time(), versions)
        return (self.recipe, claim, self.source, *told)

    def _obtained(self) -> str:
        if not self.values:
            return "-"
        mean = self._told(statistics.mean(self.values))
        if len(self.values) < 2:
            return mean
        low, high = t_interval(self.values)
        if not math.isfinite(low):
            return f"{mean} (no interval: the seeds tie)"
        return f"{mean} [{self._number(low)}, {self._number(high)}]"

    def _told(self, value: float) -> str:
        return self._number(value) + ("" if self._is_loss else " %")

    def _number(self, value: float) -> str:
        return f"{value:.4f}" if self._is_loss else f"{100 * value:.2f}"

    @property
    def _is_loss(self) -> bool:
        """Whether it is no share, of which percents would be told."""
        return self.metric.endswith("loss")

    def _time(self) -> str:
        if not self.values:
            return "-"
        return f"{self.seconds / 60:.1f} min" if self.seconds >= 90 else f"{self.seconds:.0f} s"


def row(
    recipe: str,
    source: str,
    metric: str,
    claimed: ClaimedValue,
    seeds: Sequence[Seed],
    lacking: str,
    trains: bool = True,
) -> Reproduction:
    """What there is to say of one claimed metric; no verdict where something is lacking for it."""
    values = [seed.run.metrics[metric] for seed in seeds if metric in seed.run.metrics]
    seconds = statistics.median([seed.seconds for seed in seeds]) if seeds else 0.0
    verdict = f"no verdict: {lacking}" if lacking else judge(values, claimed, trains)
    versions = [version_label(seed.run.tags) for seed in seeds]
    return Reproduction(recipe, source, metric, claimed, values, seconds, verdict, versions)


def judge(values: Sequence[float], claimed: ClaimedValue, trains: bool = True) -> str:
    """*reproduced*, *not reproduced* or *underpowered*; one seed has no spread, and tells nothing.

    Unless nothing is trained: published weights give one number, whatever the seed.

    >>> judge([0.99, 0.991, 0.992], ClaimedValue(0.95, 0.01))
    'not reproduced'
    >>> judge([0.99, 0.991, 0.992], ClaimedValue(0.95, 0.01, at_least=True))
    'reproduced'
    >>> judge([0.95], ClaimedValue(0.95, 0.01))
    'underpowered'
    >>> judge([0.955], ClaimedValue(0.95, 0.01), trains=False)
    'reproduced'
    """
    if not trains:
        low, high = admitted(claimed)
        return "reproduced" if all(low <= value <= high for value in values) else "not reproduced"
    verdict, _ = equivalence(values, admitted(claimed))
    return verdict


def admitted(claimed: ClaimedValue) -> Interval:
    """The means that agree with a claim.

    >>> admitted(ClaimedValue(0.5, 0.25)), admitted(ClaimedValue(0.5, 0.25, at_least=True)).high
    (Interval(low=0.25, high=0.75), inf)
    >>> admitted(ClaimedValue(0.5, 0.25, at_most=True))
    Interval(low=-inf, high=0.75)
    """
    below = -math.inf if claimed.at_most else claimed.value - claimed.tolerance
    above = math.inf if claimed.at_least else claimed.value + claimed.tolerance
    return Interval(below, above)


def table(rows: Sequence[Reproduction]) -> Table:
    """For the terminal, which is too narrow for sources and each seed's value."""
    shown = Table(title="reproductions")
    for name in HEADER:
        if name not in NOT_ON_SCREEN:
            shown.add_column(name, no_wrap=name == "recipe")
    for each in rows:
        cells = zip(HEADER, each.cells(), strict=True)
        shown.add_row(*(cell for name, cell in cells if name not in NOT_ON_SCREEN))
    return shown
