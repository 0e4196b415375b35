"""`darkroom list`: the recipes, with source and claimed score."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import yaml
from rich.console import Console
from rich.table import Column, Table

from experiments.recipes import find_recipe, recipe_names


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Prints one row for each recipe."""
    name_column = Column("recipe", no_wrap=True)  # a name that is cut can't be typed
    table = Table(name_column, Column("claim", no_wrap=True), "source")
    for name in recipe_names():
        table.add_row(*recipe_row(name))
    Console().print(table)


def recipe_row(name: str) -> tuple[str, str, str]:
    """Name, claimed metrics and their source, read without any of the heavy libraries."""
    claim: dict[str, Any] = yaml.safe_load(find_recipe(name).read_text()).get("claim") or {}
    claimed = [f"{metric} {goal['value']}" for metric, goal in claim.get("metrics", {}).items()]
    return name, ", ".join(claimed), claim.get("source", "")
