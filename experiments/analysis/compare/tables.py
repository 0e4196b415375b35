"""A comparison as tables: in the terminal, as markdown, as LaTeX with booktabs, and as numbers in CSV."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ...evaluation.significance import Interval
from ...evaluation.two_way_test import Needed
from ...reporting.tables import TextTable, duration, interval, number, p_value
from .comparison import Comparison, GroupSummary, Pair

MAX_PAIRS = 15  # in the terminal
WIDE = ("95 % over images", "better / same / worse", "verdict")  # columns that a terminal has no room for


def tables(comparison: Comparison) -> list[TextTable]:
    """Which runs, their metric, in what they differ, and each two; of which there is something to show."""
    found = [runs_table(comparison), metric_table(comparison)]
    if len(comparison.groups) > 1:
        found += [differences_table(comparison), pairs_table(comparison)]
    return [table for table in found if table.rows]


def runs_table(comparison: Comparison) -> TextTable:
    """A row for each group: what it is, and what it costs."""
    rows = tuple(
        (
            group.name,
            group.label,
            f"{group.num_parameters:,}",
            duration(group.seconds),
            "-" if group.images_per_second is None else f"{group.images_per_second:,.0f}",
        )
        for group in comparison.groups
    )
    return TextTable("what is compared", ("", "runs", "parameters", "time", "images/s"), rows, words=(0, 1))


def metric_table(comparison: Comparison) -> TextTable:
    """A row for each group, the best first."""
    of = "folds" if any(group.folds for group in comparison.groups) else "seeds"
    head = ("", of, "mean", "s.d.", f"95 % over {of}", f"95 % over {comparison.split} images")
    rows = tuple(
        (
            each.group.name,
            str(len(each.group.members)),
            number(each.mean),
            number(each.deviation),
            interval(each.over_seeds),
            interval(each.over_images),
        )
        for each in comparison.summaries
    )
    return TextTable(comparison.metric, head, rows)


def differences_table(comparison: Comparison) -> TextTable:
    """A row for each configuration key in which groups differ."""
    groups = comparison.groups
    rows = tuple((key, *(group.differing[key] for group in groups)) for key in groups[0].differing)
    return TextTable("in what they differ", ("key", *(group.name for group in groups)), rows)


def pairs_table(comparison: Comparison) -> TextTable:
    """A row for each two groups."""
    pairs = comparison.pairs
    head = ["pair", "difference", "95 % over both", "p", "95 % over images", "p images", "p seeds"]
    head += ["seeds needed"]
    bayes = any(pair.practical is not None for pair in pairs)
    head += ["better / same / worse"] if bayes else []
    rows = [
        (
            f"{pair.first.name} - {pair.second.name}",
            number(pair.difference, signed=True),
            interval(pair.over_both, signed=True),
            p_value(pair.p),
            interval(pair.over_images, signed=True),
            p_value(pair.p_images),
            p_value(pair.p_seeds),
            seeds_needed(pair),
            *([practical(pair)] if bayes else []),
            pair.verdict,
        )
        for pair in pairs
    ]
    holm = ", p-values corrected by Holm" if len(pairs) > 1 else ""
    title = f"differences in {comparison.metric}, over seeds and images{holm}"
    return TextTable(title, (*head, "verdict"), tuple(rows), (0, len(head)))


def seeds_needed(pair: Pair) -> str:
    """How many seeds of each would tell; infinite where none would, because the images are too few."""
    if pair.needed is None:
        return "-"
    return "∞" if pair.needed.seeds is None else f"{pair.needed.seeds:,}"


def practical(pair: Pair) -> str:
    """Probabilities of the Bayesian test."""
    return "-" if pair.practical is None else " / ".join(f"{share:.2f}" for share in pair.practical)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Tables, verdicts and remarks, for a terminal."""
    shown = tables(comparison)
    if comparison.groups[0].label_tells_all:
        shown = [table for table in shown if table.head[0] != "key"]
    for table in shown:
        drawn = Table(title=table.title)
        kept = [place for place, name in enumerate(table.head) if name not in WIDE]
        for place in kept:
            name, is_word = table.head[place], place in table.words
            narrow = name.replace(" ", "\n") if name.startswith(("p ", "seeds ")) else name
            drawn.add_column(narrow, justify="left" if is_word else "right", no_wrap=place == 0)
        for row in table.rows[:MAX_PAIRS] if table.head[0] == "pair" else table.rows:
            drawn.add_row(*(row[place] for place in kept))
        console.print(drawn)
    for pair in comparison.pairs[:MAX_PAIRS]:
        bayes = f" (better / same / worse: {practical(pair)})" if pair.practical else ""
        console.print(f"{pair.first.name} - {pair.second.name}: {pair.verdict}{bayes}", highlight=False)
    if len(comparison.pairs) > MAX_PAIRS:
        console.print(f"... and {len(comparison.pairs) - MAX_PAIRS} more pairs, which --out writes")
    for remark in comparison.remarks:
        console.print(f"- {remark}", highlight=False)


def to_markdown(comparison: Comparison) -> str:
    """Tables with their titles, then the remarks."""
    parts = [f"**{table.title}**\n\n{table.markdown()}" for table in tables(comparison)]
    parts.append("\n".join(f"- {remark}" for remark in comparison.remarks))
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(comparison: Comparison) -> str:
    """One `table` environment for each table."""
    environments = [table.latex() for table in tables(comparison)]
    return "% \\usepackage{booktabs}\n" + "\n\n".join(environments) + "\n"


def groups_frame(comparison: Comparison) -> pd.DataFrame:
    """Groups as unrounded numbers, with the keys in which they differ."""
    return pd.DataFrame([_group_row(each, comparison.metric) for each in comparison.summaries])


def pairs_frame(comparison: Comparison) -> pd.DataFrame:
    """Pairs as unrounded numbers."""
    return pd.DataFrame([_pair_row(pair) for pair in comparison.pairs])


def write_csv(comparison: Comparison, path: Path) -> None:
    """Groups into this file, and pairs into one beside it: `FILE-pairs.csv`."""
    groups_frame(comparison).to_csv(path, index=False)
    if comparison.pairs:
        pairs_frame(comparison).to_csv(path.with_name(f"{path.stem}-pairs.csv"), index=False)


def _group_row(each: GroupSummary, metric: str) -> dict[str, Any]:
    group = each.group
    over_images = each.over_images or Interval(math.nan, math.nan)
    return {
        "group": group.name,
        "runs": " ".join(member.run.run_id for member in group.members),
        "num_seeds": len(group.members),
        "metric": metric,
        "mean": each.mean,
        "standard_deviation": each.deviation,
        "seeds_low": each.over_seeds.low,
        "seeds_high": each.over_seeds.high,
        "images_low": over_images.low,
        "images_high": over_images.high,
        "seconds": group.seconds,
        "num_parameters": group.num_parameters,
        "images_per_second": group.images_per_second,
        "values": " ".join(map(str, group.values)),
        **group.differing,
    }


def _pair_row(pair: Pair) -> dict[str, Any]:
    over_images = pair.over_images or Interval(math.nan, math.nan)
    over_both = pair.over_both or Interval(math.nan, math.nan)
    needed = pair.needed or Needed(None)
    names = ("p_first_better", "p_same", "p_second_better")
    return {
        "first": pair.first.name,
        "second": pair.second.name,
        "difference": pair.difference,
        "low": over_both.low,
        "high": over_both.high,
        "p": pair.p,
        "images_low": over_images.low,
        "images_high": over_images.high,
        "p_images": pair.p_images,
        "p_seeds": pair.p_seeds,
        "seeds_needed": needed.seeds,
        "images_needed": needed.images,
        **dict(zip(names, pair.practical or (), strict=False)),
        "verdict": pair.verdict,
    }
