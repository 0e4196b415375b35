"""`darkroom data`: looks at all images of an experiment; tells, draws a page, and refuses leaks if asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from datamodules import ImageDataModule
from experiments.config import load_experiment
from experiments.data.findings import Duplicates, Findings, examine, value_range
from experiments.data.histogram import short_number
from experiments.data.labels import find_label_issues, find_runs, validation_probabilities
from experiments.data.page import render_page
from experiments.errors import RequestError, RunError

MAX_PRINTED = 5  # pairs, outliers or doubtful labels; the page and the JSON have more


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """`darkroom data`.

    Raises:
        RequestError: The data is not to be had, a run is not there, or the page can't be written.
        RunError: `--strict`, and images or groups stand in more than one split.
    """
    experiment = load_experiment(arguments.experiments, overrides)
    out = page_path(arguments.out, experiment.name)
    runs = find_runs(arguments.labels)
    data = load(experiment.data)
    findings = examine(experiment.name, data)
    if runs:
        probabilities = validation_probabilities(runs, len(data.class_names))
        findings = replace(findings, label_issues=find_label_issues(data, probabilities))
    tell(findings, Console())
    out.write_text(render_page(findings, data))
    out.with_suffix(".json").write_text(json.dumps(findings.to_json(), indent=2))
    print(f"with pictures: {out}")
    if arguments.strict and findings.leak_summary:
        raise RunError(f"{findings.leak_summary}: what is trained on would be judged on; {out} shows them")


def page_path(given: str | None, name: str) -> Path:
    """Where the page goes.

    >>> page_path(None, "digits/cnn").as_posix()
    'digits-cnn-data.html'

    Raises:
        RequestError: It can't go there.
    """
    path = Path(given or f"{name.replace('/', '-')}-data.html")
    if path.suffix != ".html":
        raise RequestError(f"--out must name a file that ends in .html, got {path}")
    if not path.parent.is_dir():
        raise RequestError(f"--out: there is no folder {path.parent.resolve()}")
    return path


def load(data: ImageDataModule) -> ImageDataModule:
    """The data with its splits.

    Raises:
        RequestError: It is not to be had.
    """
    try:
        data.prepare_data()
        data.setup()
    except (ValueError, OSError) as error:
        raise RequestError(str(error)) from error
    return data


def tell(findings: Findings, console: Console) -> None:
    """Tables of counts and pixels, what is worth knowing, and the first of what was found."""
    console.print(findings.headline, highlight=False)
    console.print(counts_table(findings))
    console.print(pixels_table(findings))
    for text, serious in findings.remarks():
        console.print(f"- {text}", style="bold red" if serious else None, markup=False, highlight=False)
    for title, rows in listed(findings):
        columns = (Column(head, overflow="fold") for head in rows[0])  # ids are there to be copied
        table = Table(*columns, title=title)
        for row in rows[1:][:MAX_PRINTED]:
            table.add_row(*row)
        console.print(table)


def counts_table(findings: Findings) -> Table:
    """Images of each class and split."""
    table = Table("label" if findings.task == "multilabel" else "class")
    for split in findings.num_images:
        table.add_column(split, justify="right")
    for label, name in enumerate(findings.class_names):
        table.add_row(name, *(_number(counts[label]) for counts in findings.class_counts.values()))
    table.add_section()
    table.add_row("images", *map(_number, findings.num_images.values()))
    return table


def _number(count: int) -> str:
    return f"{count:,}" if count else "[bold red]0[/]"


def pixels_table(findings: Findings) -> Table:
    """Channel statistics, and the range of whatever is measured of each image."""
    table = Table("", title="mean ± standard deviation; of images least / median / most")
    splits = list(findings.num_images)
    for split in splits:
        table.add_column(split, justify="right")
    for channel in range(findings.image_shape[0]):
        pairs = [
            (findings.channel_means[split][channel], findings.channel_stds[split][channel])
            for split in splits
        ]
        table.add_row(f"channel {channel}", *(f"{mean:.4f} ± {std:.4f}" for mean, std in pairs))
    for name, by_split in findings.values.items():
        ranges = [value_range(by_split[split]) for split in splits]
        table.add_row(name, *(" / ".join(map(short_number, each)) for each in ranges))
    return table


def listed(findings: Findings) -> list[tuple[str, list[list[str]]]]:
    """Title, head and rows of each table of samples."""
    tables = [
        (title, _pair_rows(pairs))
        for title, pairs in (
            ("duplicates across splits", findings.leaks),
            ("duplicates whose labels differ", findings.conflicts),
            ("duplicates within a split", findings.repeats),
        )
    ]
    groups = [
        [each.group, ", ".join(f"{count} {split}" for split, count in each.images.items())]
        for each in findings.straddlers
    ]
    tables.append(("groups across splits", [["group", "images"], *groups]))
    outliers = [
        [each.sample.id, each.sample.label, f"{each.measure} {each.value:.3g}", f"{each.score:+.1f}"]
        for each in findings.outliers
    ]
    tables.append(("outliers", [["image", "label", "what", "score"], *outliers]))
    issues = [
        [each.sample.id, each.sample.label, each.suggested, f"{each.confidence:.2f}"]
        for each in findings.label_issues or ()
    ]
    tables.append(("likely label errors", [["image", "label", "suggested", "confidence"], *issues]))
    tables.append(("left out", [["image", "reason"], *map(list, findings.skipped)]))
    return [(title, rows) for title, rows in tables if len(rows) > 1]


def _pair_rows(pairs: Duplicates) -> list[list[str]]:
    rows = [["one", "other", "labels", "difference"]]
    for pair in pairs.listed[:MAX_PRINTED]:
        labels = " / ".join(dict.fromkeys([pair.first.label, pair.second.label]))
        difference = (
            "equal"
            if pair.kind == "equal"
            else f"{pair.difference:.1f}{' mirrored' * (pair.kind == 'mirrored')}"
        )
        rows.append([f"{each.split}: {each.id}" for each in (pair.first, pair.second)] + [labels, difference])
    return rows
