"""The list command: shipped recipes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import yaml
from rich.console import Console
from rich.table import Column, Table

from ..recipes import find_recipe, recipe_names
from ..tracking.record_version import RECORD_VERSION


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Prints one row for each recipe."""
    names = [name for name in recipe_names() if not arguments.outdated or is_outdated(name)]
    if not names:
        print(f"every claim of our own was measured at record version {RECORD_VERSION}")
        return
    name_column = Column("recipe", no_wrap=True)  # a name that is cut can't be typed
    table = Table(name_column, Column("claim", no_wrap=True), "source")
    for name in names:
        table.add_row(*recipe_row(name))
    Console().print(table)


def recipe_row(name: str) -> tuple[str, str, str]:
    """Name, claimed metrics and their source, read without any of the heavy libraries."""
    claim = read_claim(name)
    claimed = [f"{metric} {goal['value']}" for metric, goal in claim.get("metrics", {}).items()]
    measured = f", measured at record version {claim['measured_at']}" if is_outdated(name) else ""
    return name, ", ".join(claimed), f"{claim.get('source', '')}{measured}"


def is_outdated(name: str) -> bool:
    """Whether the recipe's claim is our own and was measured before repairs that change numbers."""
    measured_at: int | None = read_claim(name).get("measured_at")
    return measured_at is not None and measured_at < RECORD_VERSION


def read_claim(name: str) -> dict[str, Any]:
    """The recipe's `claim:` section, empty where there is none."""
    claim: dict[str, Any] | None = yaml.safe_load(find_recipe(name).read_text()).get("claim")
    return claim or {}
