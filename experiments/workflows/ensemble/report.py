"""What an ensemble is worth: its members' metric and its own, and the gain over the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table

from darkroom.lightning_modules.metrics.names import is_minimized

from ...evaluation.bootstrap import unit_scores
from ...evaluation.clustered import UNKNOWN, group_of_image, groups_by_id, unrecorded_groups
from ...evaluation.significance import Interval
from ...evaluation.stored_predictions import StoredPredictions
from ...evaluation.two_way_test import difference_interval
from ...reporting.tables import TextTable
from .members import SPLITS, EnsembleMember, best_on_validation, score


class EnsembleRow(NamedTuple):
    """A member, or the ensemble: the metric on either split, and the member's weight, if it has one."""

    run: str
    name: str
    weight: float | None
    val: float
    test: float

    def cells(self) -> tuple[str, ...]:
        """As text."""
        weight = "" if self.weight is None else f"{self.weight:.2f}"
        return (self.run, self.name, weight, f"{self.val:.4f}", f"{self.test:.4f}")


@dataclass(frozen=True)
class Report:
    """The numbers.

    Attributes:
        method: How members were combined.
        metric: Such as accuracy.
        members: A row for each.
        ensemble: Its row.
        best: The run that is best on validation.
        gain: By how much the ensemble is better than it on test; of a metric that is minimised, lower.
        interval: Of the gain at 95 %, of these two models on other images of this kind; paired.
        num_images: Test images.
        units: That these are in groups, which the interval counts, or why there is no interval; None of
            images that are not.
        out_of_fold: What stands for validation are the out-of-fold predictions of cross-validations.
        bagged: Each member was trained on a bootstrap sample of its own.
    """

    method: str
    metric: str
    members: tuple[EnsembleRow, ...]
    ensemble: EnsembleRow
    best: str
    gain: float
    interval: Interval
    num_images: int
    out_of_fold: bool
    bagged: bool
    units: str | None = None

    @property
    def validation(self) -> str:
        """What chose the best member, and what ensembles are fitted on."""
        return "out-of-fold predictions" if self.out_of_fold else "validation"

    def told(self) -> list[str]:
        """What is to be said of the numbers, in sentences."""
        low, high = self.interval
        line = f"gain over {self.best}, the best member on {self.validation}: {self.gain:+.4f} "
        line += f"test/{self.metric}"
        if math.isfinite(low):
            line += (
                f" [{low:+.4f}, {high:+.4f}] (95 %, for these two models on other images of this kind, by "
                f"{self.num_images:,} test images)"
            )
        lines = [line, *([self.units] if self.units is not None else [])]
        if low <= 0 <= high and math.isfinite(low):
            lines.append("the interval holds 0: on other test images there may be no gain")
        if self.bagged:
            lines.append("its members were trained on bootstrap samples: it is bagging (Breiman 1996)")
        if self.method == "boosting":
            lines.append("weights are the members' votes, which follow from their training errors (SAMME)")
        if self.method in ("greedy", "stacking"):
            verb = "flatter" if self.out_of_fold else "flatters"
            lines.append(f"{self.validation}, on which it was fitted, {verb} the ensemble")
        sign = -1 if is_minimized(self.metric) else 1
        if self.method == "soup" and sign * self.ensemble.val < min(sign * row.val for row in self.members):
            lines.append(
                "on validation the soup is worse than its worst member: a mean of weights presupposes "
                "members that were fine-tuned from one start (Wortsman et al. 2022)"
            )
        return lines


def judge(
    members: Sequence[EnsembleMember],
    said: Mapping[str, StoredPredictions],
    weights: Sequence[float] | None,
    method: str,
    metric: str,
) -> Report:
    """Holds what an ensemble said of each split against what its members said.

    Args:
        members: Of the ensemble.
        said: By the ensemble, of the val and the test images.
        weights: Of the members; None where they have none.
        method: How members were combined.
        metric: What they are judged by.
    """
    best = best_on_validation(members, metric)
    judged = [said["test"], best.outcomes["test"]]
    group_of = group_of_image(judged)
    groups = None if group_of is None else groups_by_id(judged, group_of)
    scores = unit_scores(judged, metric, group_of)
    assert scores is not None  # `chosen_metric` has looked
    sign = -1 if is_minimized(metric) else 1
    rows = [
        EnsembleRow(
            member.run.run_id[:8],
            member.run.name,
            None if weights is None else weights[place],
            *(score(member.outcomes[split], metric) for split in SPLITS),
        )
        for place, member in enumerate(members)
    ]
    return Report(
        method=method,
        metric=metric,
        members=tuple(rows),
        ensemble=EnsembleRow("ensemble", method, None, *(score(said[split], metric) for split in SPLITS)),
        best=best.run.run_id[:8],
        gain=sign * (score(said["test"], metric) - score(best.outcomes["test"], metric)),
        interval=UNKNOWN
        if groups is not None and not groups.are_enough
        else difference_interval(
            sign * (scores[:, 0] - scores[:, 1]), None if groups is None else groups.freedom
        ),
        units=unrecorded_groups(judged) if groups is None else groups.told(),
        num_images=len(said["test"].ids),
        out_of_fold=best.is_folded,
        bagged=all(member.params.get("data.bootstrap") == "True" for member in members),
    )


def table(report: Report) -> Table:
    """For the terminal."""
    shown = Table("run", "name", title=f"ensemble by {report.method}: {report.metric}")
    for name in ("weight", "out of fold" if report.out_of_fold else "validation", "test"):
        shown.add_column(name, justify="right")
    for row in report.members:
        shown.add_row(*row.cells())
    shown.add_section()
    shown.add_row(*report.ensemble.cells())
    return shown


def show(report: Report, console: Console) -> None:
    """The table, and what is to be said of it."""
    console.print(table(report))
    for line in report.told():
        console.print(line, highlight=False)


def write(report: Report, path: Path) -> None:
    """As CSV, or as markdown with what is to be said below it."""
    if path.suffix == ".csv":
        pd.DataFrame([*report.members, report.ensemble]).to_csv(path, index=False)
        return
    head = ("run", "name", "weight", f"best/{report.metric}", f"test/{report.metric}")
    rows = tuple(row.cells() for row in (*report.members, report.ensemble))
    markdown = TextTable(report.method, head, rows, words=(0, 1)).markdown()
    path.write_text("\n".join([markdown, "", *report.told()]) + "\n")
