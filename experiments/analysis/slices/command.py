"""`darkroom slices`: on which images a recorded run does worse than on the rest, beyond chance."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from ...config.overrides import check_overrides
from ...errors import RequestError
from ...evaluation.clustered import outcome_groups, unrecorded_groups
from ...evaluation.stored_predictions import StoredPredictions
from ...reporting.output_path import check_out
from ...tracking.prediction_artifacts import read_outcome
from ...tracking.recorded_experiment import load_recorded_data
from ...tracking.run import RunRecord
from ...tracking.store import open_store
from .slice_metrics import judge_slices
from .slicing import Columns, Slice, by_class
from .tables import SliceFindings, print_findings, to_frame, to_markdown


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """`darkroom slices`.

    Raises:
        RequestError: The run has no predictions of that split, there is no such column, the data is not to
            be had, or a file can't be written.
    """
    paths = [check_out(Path(name), (".md", ".csv")) for name in arguments.out]
    check_overrides(overrides, ("data.*",), "a recorded run is judged; --data.root=... says where images lie")
    record = open_store().find_run(arguments.query)
    findings = find_slices(record, arguments.split, list(dict.fromkeys(arguments.by)), overrides)
    print_findings(findings, Console())
    with record.artifacts() as folder:
        (folder / "slices").mkdir()
        for suffix in (".md", ".csv"):
            write(findings, folder / "slices" / f"{arguments.split}{suffix}")
    for path in paths:
        write(findings, path)
        print(f"written: {path}")


def find_slices(
    record: RunRecord, split: str, by: Sequence[str], overrides: Mapping[str, str]
) -> SliceFindings:
    """Divides the images that a run judged by columns, or by all that there are, and judges each slice.

    Raises:
        RequestError: See `run`.
    """
    if split == "test" and not any(name.startswith("test/") for name in record.metrics):
        raise RequestError(
            f"run {record.run_id} ({record.name}, {record.status}) was not tested; --split val judges it on "
            "validation, by which its epoch was chosen"
        )
    outcome = read_outcome(record, split)
    class_names = json.loads(record.read_text("data/facts.json"))["class_names"]
    slices, notes = divide(record, split, outcome, class_names, by, overrides)
    judged = judge_slices(outcome, slices)
    groups = outcome_groups(outcome)
    caveat = unrecorded_groups([outcome])
    notes += [groups.told()] if groups is not None else [caveat] if caveat is not None else []
    if outcome.task == "multilabel":
        notes.append("accuracy is that of whole images: all labels right, above a probability of one half")
    if split == "val":
        notes.append("these are validation's images, by which the epoch was chosen")
    return SliceFindings(f"run {record.run_id[:8]} ({record.name}) on {split}", tuple(judged), tuple(notes))


def divide(
    record: RunRecord,
    split: str,
    outcome: StoredPredictions,
    class_names: Sequence[str],
    by: Sequence[str],
    overrides: Mapping[str, str],
) -> tuple[list[Slice], list[str]]:
    """Slices by what was asked for, with notes; of what needs the data none where it is not available."""
    of_classes = by_class(outcome.targets, class_names)
    if list(by) == ["class"]:
        return of_classes, []
    try:
        columns = Columns(load_recorded_data(record, overrides), split, outcome.ids)
    except RequestError as error:
        if by or overrides:
            raise
        return of_classes, [f"by class alone, as the images are not available: {error}"]
    chosen, notes = (list(by), []) if by else columns.usual()
    slices = []
    for name in chosen:
        slices += of_classes if name == "class" else columns.slices(name)
    return slices, notes


def write(findings: SliceFindings, path: Path) -> None:
    """Into a file of the kind that its name asks for."""
    if path.suffix == ".csv":
        to_frame(findings).to_csv(path, index=False)
    else:
        path.write_text(to_markdown(findings))
