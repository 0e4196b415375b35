"""The structure of the package: what imports what, and what its names promise."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from support.heavy_imports import loaded

ROOT = Path(__file__).parents[2]
FOLDERS = ("datamodules", "experiments", "lightning_modules")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("darkroom", *parts[: -1 if parts[-1] == "__init__" else None]))


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("darkroom", cache_dir=None)


def test_the_import_contracts_see_every_file(graph):
    assert {module_name(path) for path in FILES} == graph.modules - {"darkroom", "darkroom.__main__"}


def test_no_module_imports_itself_in_a_circle_not_even_inside_functions(graph):
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    order = list(TopologicalSorter(imports).static_order())  # raises CycleError with the circle
    assert len(order) == len(graph.modules)


def test_a_private_name_is_imported_by_nobody():
    taken = [
        f"{path.relative_to(ROOT)}:{node.lineno} {alias.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level > 0 or str(node.module).startswith("darkroom"))
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert not taken


def test_no_two_public_classes_have_the_same_name():
    places: dict[str, list[str]] = {}
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_every_file_begins_with_a_sentence_that_says_what_is_in_it():
    for path, tree in TREES.items():
        sentence = (ast.get_docstring(tree) or "").partition("\n\n")[0].rstrip()
        assert sentence.endswith("."), path


@pytest.mark.parametrize("name", ["darkroom", "darkroom.datamodules", "darkroom.lightning_modules"])
def test_importing_a_door_imports_nothing_heavy(name, tmp_path):
    assert loaded(f"import {name}", tmp_path) == ["None"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], "0"),
        (["train", "--help"], "0"),
        (["list"], "0"),
        (["train", "no/such"], "2"),
        (["sweep", "digits/cnn", "missing.yaml"], "2"),
        (["tain"], "2"),
    ],
)
def test_help_and_the_refusal_of_what_is_not_there_import_nothing_heavy(arguments, status, tmp_path):
    use = f"from darkroom.experiments.cli.main import main; sys.exit(main({arguments}))"
    assert loaded(use, tmp_path) == [status]
