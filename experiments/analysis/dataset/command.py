"""`darkroom data`: looks at all images of an experiment; tells, draws a page, and refuses leaks if asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ...config.experiment import load_experiment
from ...errors import RunError
from ...reporting.output_path import check_out
from .html_report import render_page
from .inspection import examine
from .label_issues import find_label_issues, find_runs, validation_probabilities
from .tables import print_findings


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """`darkroom data`.

    Raises:
        RequestError: The data is not available, a run is not there, or the page can't be written.
        RunError: `--strict`, and images or groups stand in more than one split.
    """
    experiment = load_experiment(arguments.experiments, overrides)
    out = page_path(arguments.out, experiment.name)
    runs = find_runs(arguments.labels)
    data = experiment.load_data()
    findings = examine(experiment.name, data)
    if runs:
        probabilities = validation_probabilities(runs, data.class_names)
        findings = replace(findings, label_issues=find_label_issues(data, probabilities))
    print_findings(findings, Console())
    out.write_text(render_page(findings, data))
    out.with_suffix(".json").write_text(json.dumps(findings.to_json(), indent=2))
    print(f"with pictures: {out}")
    if arguments.strict and findings.leak_summary:
        raise RunError(f"{findings.leak_summary}, which must not share any; {out} shows them")


def page_path(given: str | None, name: str) -> Path:
    """Where the page goes.

    >>> page_path(None, "digits/cnn").as_posix()
    'digits-cnn-data.html'

    Raises:
        RequestError: It can't go there.
    """
    return check_out(Path(given or f"{name.replace('/', '-')}-data.html"), (".html",))
