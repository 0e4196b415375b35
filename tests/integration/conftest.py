"""Commands as a user gives them: in this process where that is enough, else in one of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from support.training import TINY
from support.workspace import Answer, Workspace

from darkroom.experiments.runtime.processes import context
from darkroom.experiments.tracking.run import RunRecord
from darkroom.experiments.tracking.store import Store, open_store


@pytest.fixture(scope="session", autouse=True)
def warm_ranks() -> None:
    """Has the other ranks of trainings in this process forked from one that has imported what they import."""
    context.set_forkserver_preload(["darkroom.experiments.training.run"])


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
def open_store_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Workspace], Store]:
    """Opens the store of another project folder, and stands in it."""

    def open_at(workspace: Workspace) -> Store:
        monkeypatch.chdir(workspace.folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.store_uri)
        return open_store()

    return open_at


@pytest.fixture
def store(inside: Workspace) -> Store:
    return open_store()


@pytest.fixture
def darkroom(inside: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs a command in this process, in the shared project folder."""
    from darkroom.experiments.cli.main import main

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve_mlflow(folder: Path, port: int | None = None) -> Iterator[str]:
    """A tracking server that keeps everything in `folder`, killed at the end of the block."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["--host=127.0.0.1", f"--port={port}", "--workers=1"]
    what = [
        f"--backend-store-uri=sqlite:///{folder / 'server.db'}",
        f"--artifacts-destination={folder / 'kept'}",
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *where, *what],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{url}/health", timeout=1).ok:
                    break
            time.sleep(0.1)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="session")
def mlflow_server() -> Callable[..., contextlib.AbstractContextManager[str]]:
    """Starts a real tracking server."""
    return serve_mlflow
