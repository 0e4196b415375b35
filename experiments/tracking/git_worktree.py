"""Checks out a run's recorded commit in a temporary worktree."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError
from .provenance import PACKAGE_ROOT
from .run import RunRecord


@dataclass(frozen=True)
class Checkout:
    """Code that is checked out beside the present one.

    Attributes:
        folder: The worktree.
        module: What `python -m` runs as the command line.
        environment: Variables with which Python imports this code, and Git means this worktree.
    """

    folder: Path
    module: str
    environment: dict[str, str]


@contextlib.contextmanager
def checkout(run: RunRecord) -> Iterator[Checkout]:
    """A worktree at the run's commit with its uncommitted changes.

    Raises:
        RequestError: The run recorded no commit, or this checkout does not have it, or it holds no Darkroom.
    """
    commit = run.tags.get("git_commit")
    if commit is None:
        raise RequestError(
            f"run {run.run_id} ({run.name}) recorded no commit: Darkroom ran outside a checkout. Install "
            "the version that stands in environment/packages.txt, and rerun without --at-commit"
        )
    repository = _repository_with(commit)
    diff = run.read_text("environment/uncommitted.diff")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "code"
        _git(
            "the commit can't be checked out",
            "-C",
            str(repository),
            "worktree",
            "add",
            "--detach",
            str(folder),
            commit,
        )
        try:
            entry = _entry(folder)
            if entry is None:
                raise RequestError(
                    f"commit {commit[:12]} holds no Darkroom: its version stands in environment/packages.txt"
                )
            if diff:
                complaint = "the recorded uncommitted changes do not apply"
                _git(complaint, "-C", str(folder), "apply", "--whitespace=nowarn", "-", text=diff)
            git_folder = _git("", "-C", str(folder), "rev-parse", "--absolute-git-dir").strip()
            # The worktree's state is what the new run is to record, wherever it stands.
            module, path = entry
            environment = {"PYTHONPATH": str(path), "GIT_DIR": git_folder, "GIT_WORK_TREE": str(folder)}
            yield Checkout(folder, module, environment)
        finally:
            _git("", "-C", str(repository), "worktree", "remove", "--force", str(folder))


def _entry(folder: Path) -> tuple[str, Path] | None:
    """The module of the command line in a checkout, and where Python finds it; None where there is none.

    The three packages were imported by their own names before they became parts of `darkroom`.
    """
    if (folder / "src" / "darkroom" / "__main__.py").is_file():
        return "darkroom", folder / "src"
    if (folder / "experiments" / "__main__.py").is_file():
        return "experiments", folder
    return None


def _repository_with(commit: str) -> Path:
    """Darkroom's own checkout, or the working folder's repository where that has the commit and it has not.

    Raises:
        RequestError: Neither has it.
    """
    for folder in (PACKAGE_ROOT, Path.cwd()):
        known = subprocess.run(
            ["git", "-C", str(folder), "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True
        )
        if known.returncode == 0:
            return folder
    raise RequestError(
        f"neither Darkroom's checkout nor the repository of this folder has the commit {commit}; git fetch "
        "may bring it"
    )


def _git(complaint: str, *arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["git", *arguments], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise RequestError(f"{complaint} (git: {' '.join(done.stderr.split())[:300]})")
    return done.stdout
