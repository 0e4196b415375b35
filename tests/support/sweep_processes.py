"""A sweep in a process of its own, as a test looks at it from outside."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import optuna
import psutil


def trial_processes(process) -> list[psutil.Process]:
    """The children of the server, itself the controller's child; git, which it asks once, is none of them."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for server in psutil.Process(process.pid).children():
            command = server.cmdline()
            found += [child for child in server.children() if child.cmdline() == command]
    return found


def wait_for(condition, process=None, seconds=240):
    """What the condition returns, once that is anything, while the process lives that works on it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, process.communicate()
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing came in {seconds} s")


def checkpoints(workspace) -> list[Path]:
    return list(workspace.folder.glob("mlruns/checkpoints/*/last.ckpt"))


def studied(workspace, name) -> optuna.Study:
    return optuna.load_study(
        study_name=f"digits/{name}", storage=f"sqlite:///{workspace.folder / 'optuna.db'}"
    )


def controllers(workspace) -> list[psutil.Process]:
    """The copies that run in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()[1:4]
            if command == ["-m", "darkroom", "sweep"] and process.cwd() == str(workspace.folder):
                found.append(process)
    return found


def assert_each_trial_once(workspace, name, trials, open_store_at):
    assert [trial.state.name for trial in studied(workspace, name).trials] == ["COMPLETE"] * trials
    store = open_store_at(workspace)
    children = store.child_runs(store.find_run(f"sweep digits/{name}"))
    assert sorted(run.tags["role"] for run in children) == ["trial"] * trials + ["winner"]
    assert {run.status for run in children} == {"FINISHED"}
