"""`darkroom reproduce`: runs a recipe's seeds, holds the result against its claim, gives a verdict."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from rich.console import Console

from ...config.experiment import Experiment
from ...config.identity import INERT
from ...errors import RequestError
from ...recipes import find_recipe, recipe_names
from ...reporting.output_path import check_out
from ...tracking.run import RunRecord
from ...tracking.run_lifecycle import recording
from ...tracking.store import Store, open_store
from .html_report import render_page
from .markdown_table import check_document, markdown, update_table
from .seed_runs import Budget, Seed, load_recipe, run_seeds
from .verdict import Reproduction, row, table


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Each recipe in turn; what is recorded already is not trained again."""
    if arguments.fresh and arguments.recorded:
        raise RequestError("--fresh trains everything and --recorded nothing: give one of them")
    names = chosen_recipes(arguments.experiments, arguments.all)
    out = None if arguments.out is None else check_out(Path(arguments.out))
    page, document = (out, None) if out and out.suffix == ".html" else (None, out)
    if document is not None:
        check_document(document)
    # All of them first: what is to be refused is, before the first one is trained.
    recipes = {name: load_recipe(name, overrides, arguments.budget) for name in names}
    store = open_store()
    rows: list[Reproduction] = []
    missing: list[str] = []
    for name, experiment in recipes.items():
        try:
            rows += reproduce(name, experiment, overrides, arguments, store)
        except RequestError as error:
            if not arguments.all:
                raise
            missing.append(f"{name} was left out: {error}")
    Console().print(table(rows))
    for line in missing:
        print(line)
    if page is not None:
        page.write_text(render_page(rows))
        print(f"the page: {page}")
    if document is not None:
        if kept := update_table(document, rows):
            print(f"kept as they stand, for no finished run of them is recorded here: {', '.join(kept)}")
        print(f"the table: {document}")


def chosen_recipes(given: Sequence[str], everything: bool) -> list[str]:
    """The recipes named, or all that claim something.

    Raises:
        RequestError: Neither was asked for, or both.
    """
    if bool(given) == everything:
        raise RequestError("which recipes? Name some that have a claim (darkroom list), or give --all")
    if given:
        return list(given)
    return [name for name in recipe_names() if (yaml.safe_load(find_recipe(name).read_text())).get("claim")]


def reproduce(
    name: str,
    experiment: Experiment,
    overrides: Mapping[str, str],
    arguments: argparse.Namespace,
    store: Store,
) -> list[Reproduction]:
    """One recipe's seeds, in a run of its own that tells of them; a row for each metric it claims."""
    budget: Budget = arguments.budget
    if arguments.recorded:
        seeds = list(
            run_seeds(
                name,
                experiment,
                budget,
                store,
                train_missing=False,
                any_version=arguments.any_version,
            )
        )
        return _rows(experiment, overrides, budget, seeds)
    tags = {"recipe": experiment.name, "role": "reproduction", "budget": budget}
    parent = store.start_run(experiment.name, f"reproduction ({budget})", tags)
    with recording(parent, to_continue="the same command again"):
        seeds = list(
            run_seeds(
                name,
                experiment,
                budget,
                store,
                parent,
                arguments.fresh,
                any_version=arguments.any_version,
            )
        )
        rows = _rows(experiment, overrides, budget, seeds)
        record_report(parent, rows, seeds)
    return rows


def _rows(
    experiment: Experiment, overrides: Mapping[str, str], budget: Budget, seeds: Sequence[Seed]
) -> list[Reproduction]:
    claim = experiment.claim
    assert claim is not None
    lacking = what_lacks(budget, overrides, len(claim.seeds) - len(seeds))
    return [
        row(
            experiment.name,
            claim.source,
            metric,
            claimed,
            seeds,
            lacking,
            trains=experiment.trainer.max_epochs > 0,
        )
        for metric, claimed in claim.metrics.items()
    ]


def what_lacks(budget: Budget, overrides: Mapping[str, str], seeds: int) -> str:
    """Why there can be no verdict; empty where there can.

    >>> what_lacks("full", {"data.root": "images"}, 0)
    ''
    >>> what_lacks("full", {"model.lr": "0.1"}, 0)
    'model.lr was changed'
    """
    if budget != "full":
        return f"only the {budget} part of it was run"
    changed = [key for key in overrides if key not in INERT]
    if changed:
        return f"{', '.join(changed)} was changed"
    return f"{seeds} seeds are not recorded" if seeds else ""


def record_report(parent: RunRecord, rows: Sequence[Reproduction], seeds: Sequence[Seed]) -> None:
    """Mean and verdict of each claimed metric, the runs behind them, the table and the page."""
    for each in rows:
        if each.values:
            mean = sum(each.values) / len(each.values)
            parent.log_metrics({f"mean/{each.metric}": mean, f"claimed/{each.metric}": each.claimed.value})
    parent.set_tags({"verdict": "; ".join(each.verdict for each in rows)})
    with parent.artifacts() as folder:
        (folder / "reproduction.md").write_text(markdown(rows))
        (folder / "reproduction.html").write_text(render_page(rows))
        runs = {str(seed.number): seed.run.run_id for seed in seeds}
        (folder / "runs.json").write_text(json.dumps(runs, indent=2))
