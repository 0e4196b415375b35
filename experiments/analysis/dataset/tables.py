"""What was found, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ...reporting.svg import short_number
from .findings import DatasetFindings, Duplicates, value_range

MAX_PRINTED = 5  # rows of each list; the page and the JSON have more
PAIR_HEAD = ("split", "image", "label", "grey levels apart")


def print_findings(findings: DatasetFindings, console: Console) -> None:
    """Counts, pixels, what is worth knowing, and the first of each list."""
    console.print(findings.headline, highlight=False)
    console.print(counts_table(findings))
    console.print(pixels_table(findings))
    for text, serious in findings.remarks():
        console.print(f"- {text}", style="bold red" if serious else None, markup=False, highlight=False)
    for title, head, rows in lists(findings):
        shown = f"{title} (the first {MAX_PRINTED})" if len(rows) > MAX_PRINTED else title
        columns = (Column(name, overflow="fold") for name in head)  # ids are there to be copied
        table = Table(*columns, title=shown)
        for row in rows[:MAX_PRINTED]:
            table.add_row(*map(Text, row), end_section=head is PAIR_HEAD)
        console.print(table)


def counts_table(findings: DatasetFindings) -> Table:
    """Images of each class and split."""
    table = Table("label" if findings.task == "multilabel" else "class")
    for split in findings.num_images:
        table.add_column(split, justify="right")
    for label, name in enumerate(findings.class_names):
        table.add_row(Text(name), *(_count(counts[label]) for counts in findings.class_counts.values()))
    table.add_section()
    table.add_row("images", *map(_count, findings.num_images.values()))
    return table


def pixels_table(findings: DatasetFindings) -> Table:
    """Channel statistics, and the range of whatever is measured of each image."""
    table = Table("", title="mean ± deviation; least / median / most of an image")
    splits = list(findings.num_images)
    for split in splits:
        table.add_column(split, justify="right")
    for channel in range(findings.image_shape[0]):
        means, stds = (
            [of_split[split][channel] for split in splits]
            for of_split in (findings.channel_means, findings.channel_stds)
        )
        cells = (f"{mean:.4f} ± {std:.4f}" for mean, std in zip(means, stds, strict=True))
        table.add_row(f"channel {channel}", *cells)
    for name, by_split in findings.values.items():
        ranges = [value_range(by_split[split]) for split in splits]
        table.add_row(name, *(" / ".join(map(short_number, each)) for each in ranges))
    return table


def lists(findings: DatasetFindings) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Title, head and rows of each list that has any."""
    if findings.leaks.total:
        yield "duplicates across splits", PAIR_HEAD, _pairs(findings.leaks)
    if findings.conflicts.total:
        yield "duplicates whose labels differ", PAIR_HEAD, _pairs(findings.conflicts)
    if findings.repeats.total:
        yield "duplicates within a split", PAIR_HEAD, _pairs(findings.repeats)
    if findings.straddlers:
        rows = [
            [each.group, ", ".join(f"{count} {split}" for split, count in each.images.items())]
            for each in findings.straddlers
        ]
        yield "groups across splits", ("group", "images"), rows
    if findings.outliers:
        rows = [
            [
                each.sample.id,
                each.sample.label,
                f"{each.measure} {short_number(each.value)}",
                f"{each.score:+.1f}",
            ]
            for each in findings.outliers
        ]
        yield "outliers", ("image", "label", "what", "robust deviations"), rows
    if findings.label_issues:
        rows = [
            [each.sample.id, each.sample.label, each.suggested, f"{each.confidence:.2f}"]
            for each in findings.label_issues
        ]
        yield "likely label errors", ("image", "label", "rather", "probability"), rows
    if findings.skipped:
        yield "left out", ("image", "reason"), findings.skipped


def _pairs(pairs: Duplicates) -> list[list[str]]:
    rows = []
    for pair in pairs.listed[: MAX_PRINTED + 1]:
        both = (pair.first, pair.second)
        apart = "equal" if pair.kind == "equal" else f"{pair.difference:.1f}"
        cells = ["\n".join(getattr(sample, name) for sample in both) for name in ("split", "id", "label")]
        rows.append([*cells, f"{apart}, mirrored" if pair.kind == "mirrored" else apart])
    return rows


def _count(number: int) -> Text:
    return Text(f"{number:,}", "" if number else "bold red")
