"""A sweep in a process of its own, as a test looks at it from outside."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import optuna
import psutil


def trial_processes(process) -> list[psutil.Process]:
    """The children of the server, itself the conductor's child; git, which it asks once, is none of them."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for server in psutil.Process(process.pid).children():
            command = server.cmdline()
            found += [child for child in server.children() if child.cmdline() == command]
    return found


def wait_for(condition, process, seconds=120):
    """What the condition returns, once that is anything, while the process lives."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
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
