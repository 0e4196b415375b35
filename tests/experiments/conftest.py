"""Commands as a user gives them: in this process where that is enough, else in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.tracking import RunRecord, Store, open_store

TINY = [
    "--model.backbone_options.widths=[8]",
    "--trainer.max_epochs=3",
    "--trainer.monitor=val/loss",
]


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Workspace:
    """A project folder with a store of its own."""

    folder: Path

    @property
    def store_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, "MLFLOW_TRACKING_URI": self.store_uri, **extra}

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """Starts `darkroom` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "experiments", *arguments],
            cwd=self.folder,
            env=self.environment(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **extra: str) -> Answer:
        """Runs `darkroom` in a process of its own, to its end."""
        process = self.start(*arguments, **extra)
        output, errors = process.communicate(timeout=300)
        return Answer(process.returncode, output, errors)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One project folder for all tests that do not spoil it for each other."""
    return Workspace(tmp_path_factory.mktemp("project"))


@pytest.fixture
def fresh_workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def inside(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Stands in the shared project folder."""
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.store_uri)
    return workspace


@pytest.fixture
def store(inside: Workspace) -> Store:
    return open_store()


@pytest.fixture
def darkroom(inside: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs a command in this process, in the shared project folder."""
    from experiments.__main__ import main

    def command(*arguments: str) -> Answer:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as stop:  # argparse's own way out
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def trained(workspace: Workspace) -> str:
    """The id of one finished run of digits/cnn, tiny, for all tests that only read it."""
    answer = workspace.run("train", "digits/cnn", "--mlflow.run_name=trained", *TINY)
    assert answer.status == 0, answer.errors
    return answer.output.rpartition("run ")[2].split()[0]


@pytest.fixture
def trained_run(trained: str, store: Store) -> RunRecord:
    return store.find_run(trained)
