"""A project folder in which commands are run as a user gives them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support import fork_server
from support.fork_server import Forked


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

    def start(
        self, *arguments: str, start_new_session: bool = False, **extra: str
    ) -> subprocess.Popen[str] | Forked:
        """Starts `darkroom` in a process of its own.

        It is forked from one that has imported what commands import; not so in a folder with code of its
        own.
        """
        environment = self.environment(**extra)
        if not (self.folder / "experiments").exists():
            return fork_server.start(arguments, self.folder, environment, start_new_session)
        return subprocess.Popen(
            [sys.executable, "-m", "darkroom", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=start_new_session,
        )

    def run(self, *arguments: str, **extra: str) -> Answer:
        """Runs `darkroom` in a process of its own, to its end."""
        process = self.start(*arguments, **extra)
        output, errors = process.communicate(timeout=300)
        assert process.returncode is not None
        return Answer(process.returncode, output, errors)
