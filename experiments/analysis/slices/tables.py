"""Slices as a table: in the terminal, as markdown, and as numbers in CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from darkroom.datamodules.messages import some

from ...evaluation.clustered import MIN_GROUPS
from ...evaluation.significance import Interval
from ...reporting.tables import TextTable, p_value
from .slice_metrics import MIN_IMAGES, Judged

MAX_PRINTED = 20  # slices in the terminal
HEAD = ("slice", "images", "accuracy %", "F1 %", "gap to rest", "p Holm")
STYLES = {"worse": "bold red", "better": "green", "cannot tell": "", "too small": "dim"}


@dataclass(frozen=True)
class SliceFindings:
    """What a run is worth on each slice of a split, the worst first.

    Attributes:
        title: Of which run and split.
        judged: The slices.
        notes: What else one should know, in sentences.
    """

    title: str
    judged: tuple[Judged, ...]
    notes: tuple[str, ...]

    def remarks(self) -> list[str]:
        """Which slices are worse beyond chance, which can't be judged, and the notes."""
        tested = [each for each in self.judged if each.verdict != "too small"]
        small = [f"{label(each)} ({each.size})" for each in self.judged if each.verdict == "too small"]
        worse = [label(each) for each in tested if each.verdict == "worse"]
        if not tested:
            found = "no slice is large enough to be held against the rest"
        elif worse:
            found = f"worse than the rest beyond chance, of {len(tested)} slices: {', '.join(worse)}"
        else:
            found = f"none of {len(tested)} slices is worse than the rest beyond chance"
        least = f"below {MIN_IMAGES} images, or {MIN_GROUPS} groups of images where there are any"
        too_small = f"too small to tell, or with a rest too small ({least}): {some(small, 10)}"
        return [found, *([too_small] if small else []), *self.notes]


def label(judged: Judged) -> str:
    """What a slice is called."""
    return f"{judged.by}: {judged.name}"


def print_findings(findings: SliceFindings, console: Console) -> None:
    """The worst slices and the remarks, for a terminal: intervals stand below their numbers."""
    table = Table(title=findings.title, caption="95 % intervals below; F1 of a class among all images")
    for place, name in enumerate(HEAD):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for judged in findings.judged[:MAX_PRINTED]:
        cells = [
            Text("\n".join(map(_narrow, each)) if place else each[0])
            for place, each in enumerate(_cells(judged))
        ]
        table.add_row(*cells, style=STYLES[judged.verdict])
    console.print(table)
    if len(findings.judged) > MAX_PRINTED:
        console.print(f"... and {len(findings.judged) - MAX_PRINTED} more slices, which --out writes")
    for remark in findings.remarks():
        console.print(f"- {remark}", markup=False, highlight=False)


def to_markdown(findings: SliceFindings) -> str:
    """The title, all slices, and the remarks."""
    rows = tuple(
        (*(" ".join(filter(None, each)) for each in _cells(judged)), judged.verdict)
        for judged in findings.judged
    )
    table = TextTable(findings.title, (*HEAD, "verdict"), rows, words=(0, len(HEAD)))
    remarks = "\n".join(f"- {remark}" for remark in findings.remarks())
    return f"**{findings.title}**, with 95 % intervals\n\n{table.markdown()}\n\n{remarks}\n"


def to_frame(findings: SliceFindings) -> pd.DataFrame:
    """Unrounded numbers, as shares."""
    return pd.DataFrame(
        [
            {
                "by": each.by,
                "slice": each.name,
                "images": each.size,
                "accuracy": each.accuracy,
                "accuracy_low": each.accuracy_within.low,
                "accuracy_high": each.accuracy_within.high,
                "f1": each.f1,
                "f1_low": _finite(each.f1_within.low),
                "f1_high": _finite(each.f1_within.high),
                "gap": each.gap,
                "gap_low": _finite(each.gap_within.low),
                "gap_high": _finite(each.gap_within.high),
                "p_holm": each.p,
                "verdict": each.verdict,
            }
            for each in findings.judged
        ]
    )


def percent(value: float, signed: bool = False) -> str:
    """
    >>> percent(0.9876), percent(-0.1, signed=True), percent(math.nan)
    ('98.8', '-10.0', '-')
    """
    return "-" if not math.isfinite(value) else f"{100 * value:{'+' if signed else ''}.1f}"


def within(ends: Interval, signed: bool = False) -> str:
    """
    >>> within(Interval(0.9, 0.95)), within(Interval(-math.inf, math.inf))
    ('[90.0, 95.0]', '')
    """
    if not math.isfinite(ends.low):
        return ""
    return f"[{percent(ends.low, signed)}, {percent(ends.high, signed)}]"


def _cells(judged: Judged) -> list[Sequence[str]]:
    """A row's cells, each of a number and perhaps its interval."""
    gap = percent(judged.gap, signed=True), within(judged.gap_within, signed=True)
    return [
        (label(judged),),
        (f"{judged.size:,}",),
        (percent(judged.accuracy), within(judged.accuracy_within)),
        (percent(judged.f1), within(judged.f1_within)),
        gap if gap[1] else (judged.verdict,),
        (p_value(judged.p),),
    ]


def _narrow(cell: str) -> str:
    """An interval without its brackets.

    >>> _narrow("[-1.5, +2.0]"), _narrow("98.0")
    ('-1.5 to +2.0', '98.0')
    """
    return cell.strip("[]").replace(", ", " to ")


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
