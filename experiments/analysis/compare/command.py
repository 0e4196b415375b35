"""`darkroom compare`: which of several configurations is better, and whether that can be known."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from darkroom.lightning_modules.metrics.names import METRIC_NAMES, TUNED_METRICS, is_minimized

from ...config.overrides import check_overrides
from ...errors import RequestError, nearest
from ...reporting.output_path import check_out
from ...runtime.extras import require
from ...tracking.run import RunRecord
from ...tracking.run_selection import left_out, select_runs, usable
from ...tracking.store import open_store
from .caveats import remarks
from .comparison import Comparison, compare
from .groups import ComparedRun, group_members, read_member
from .tables import print_comparison, to_latex, to_markdown, write_csv

KINDS = (".md", ".tex", ".csv", ".html")  # of files that are written
READERS = 8  # runs read at once; a server answers several, and so does a disk


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """`darkroom compare`.

    Raises:
        RequestError: A run is not there, none can be compared, or a file can't be written.
    """
    split, metric = split_and_metric(arguments.metric)
    paths = [check_out(Path(name), KINDS) for name in arguments.out]
    check_overrides(
        overrides, ("data.*",), "recorded runs are compared; --data.root=... says where images lie"
    )
    if arguments.rope is not None:
        require("baycomp", "--rope")
    store = open_store()
    comparison = compare_runs(
        select_runs(store, arguments.runs, arguments.where),
        split,
        metric,
        arguments.rope,
        arguments.any_version,
    )
    print_comparison(comparison, Console())
    for path in paths:
        write(comparison, path, overrides)
        print(f"written: {path}")


def split_and_metric(name: str) -> tuple[str, str]:
    """A metric's two halves.

    >>> split_and_metric("test/accuracy"), split_and_metric("f1_macro")
    (('test', 'accuracy'), ('test', 'f1_macro'))

    Raises:
        RequestError: There is no such metric.
    """
    split, _, metric = name.rpartition("/")
    split = split or "test"
    if split not in ("val", "test"):
        raise RequestError(f"--metric must be of test or val, such as test/accuracy, got {name}")
    if metric not in (*METRIC_NAMES, *TUNED_METRICS):
        raise RequestError(
            f"--metric: there is no {metric}; {nearest(metric, (*METRIC_NAMES, *TUNED_METRICS))}"
        )
    return split, metric


def compare_runs(
    runs: Sequence[RunRecord],
    split: str,
    metric: str,
    rope: float | None = None,
    any_version: bool = False,
) -> Comparison:
    """Groups and compares all of the runs that can be.

    Raises:
        RequestError: None can.
    """
    finished, notes = usable(runs)
    if split == "test" and any(f"test/{metric}" not in run.metrics for run in finished):
        judged = [run for run in finished if f"test/{metric}" in run.metrics]
        split = "val"
        notes.append(
            f"{len(finished) - len(judged)} of {len(finished)} runs have no test/{metric}: "
            "all are compared on validation, by which their epochs were chosen"
        )
    members, lacking = read_members(finished, split, metric)
    notes += [left_out(lacking, f"recorded no {split} predictions or no {split}/{metric}")] if lacking else []
    if not members:
        reasons = f" ({'; '.join(notes)})" if notes else ""
        raise RequestError(
            f"none of {len(runs)} runs can be compared{reasons}; darkroom ui shows what is recorded"
        )
    minimized = is_minimized(metric)
    groups, repeated = group_members(members, minimized, any_version)
    summaries, pairs = compare(groups, metric, minimized, rope)
    told = (*notes, *repeated, *remarks(summaries, split, metric))
    return Comparison(f"{split}/{metric}", minimized, tuple(summaries), tuple(pairs), told)


def read_members(
    runs: Sequence[RunRecord], split: str, metric: str
) -> tuple[list[ComparedRun], list[RunRecord]]:
    """What can be read, and the runs of which it can't."""

    def read(run: RunRecord) -> ComparedRun | None:
        try:
            return read_member(run, split, metric)
        except RequestError:
            return None

    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(read, runs))
    members = [member for member in found if member is not None]
    return members, [run for run, member in zip(runs, found, strict=True) if member is None]


def render_html(comparison: Comparison, overrides: Mapping[str, str]) -> str:
    """The HTML report, which shows images, and for that imports torch."""
    from .html_report import render_page

    return render_page(comparison, overrides)


def write(comparison: Comparison, path: Path, overrides: Mapping[str, str]) -> None:
    """Into a file of the kind that its name asks for."""
    if path.suffix == ".csv":
        write_csv(comparison, path)
        return
    texts: dict[str, Callable[[], str]] = {
        ".md": lambda: to_markdown(comparison),
        ".tex": lambda: to_latex(comparison),
        ".html": lambda: render_html(comparison, overrides),
    }
    path.write_text(texts[path.suffix]())
