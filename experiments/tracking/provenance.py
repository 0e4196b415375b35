"""Git state, packages and hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGE_ROOT = Path(__file__).resolve().parents[2]  # the folder that Darkroom's packages lie in
PACKAGES = ("datamodules", "experiments", "lightning_modules")


def packages() -> str:
    """All installed packages as a requirements file."""
    # By the names of their folders, name-version.dist-info: reading the metadata takes a third of a second.
    folders = {path.stem for entry in sys.path for path in Path(entry or ".").glob("*.dist-info")}
    return "\n".join(sorted((folder.replace("-", "==", 1) for folder in folders), key=str.lower)) + "\n"


def hardware() -> dict[str, Any]:
    """Machine, processors, memory in GiB, accelerators and number of threads.

    The devices of a run that trains on several divide the threads among them.
    """
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "processor": _processor_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
    }


@cache
def code_sources() -> str:
    """`source_files` of the Darkroom that runs.

    Read once: what is edited later is not what this process, and those forked from it, have imported.
    """
    return source_files(PACKAGE_ROOT)


def source_files(root: Path) -> str:
    """A SHA-256 sum and path for each of Darkroom's source files below `root`, as `sha256sum` prints them."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n"
        for path in paths
    )


def source_digest(sources: str) -> str:
    """One digest of all source files, from what `source_files` returns."""
    return hashlib.sha256(sources.encode()).hexdigest()


@cache
def code_git_state() -> dict[str, str] | None:
    """`git_state` of the checkout that Darkroom's own files lie in; None where it is installed elsewhere.

    An installed copy may lie within another repository (a virtual environment in a project's folder), which
    does not track it. Asked once, as `code_sources`.
    """
    tracked = _git(PACKAGE_ROOT, "ls-files", "--error-unmatch", "experiments/cli/main.py")
    return None if tracked is None else git_state(PACKAGE_ROOT)


def workspace_git_state() -> dict[str, str] | None:
    """`git_state` of the working folder's repository, where that is another one than Darkroom's own."""
    here = _git(Path.cwd(), "rev-parse", "--show-toplevel")
    if here is None:
        return None
    is_own = code_git_state() is not None and here == _git(PACKAGE_ROOT, "rev-parse", "--show-toplevel")
    return None if is_own else git_state(Path.cwd())


def git_state(folder: Path) -> dict[str, str] | None:
    """Commit and uncommitted diff (new files named) of the repository around a folder; None outside any."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit.strip(),
        "status": _git(folder, "status", "--porcelain") or "",
        "diff": _git(folder, "diff", "HEAD", "--binary") or "",
    }


def _git(folder: Path, *arguments: str) -> str | None:
    # The folder says which repository is meant, whatever a hook or `rerun --at-commit` has set.
    environment = {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=30, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or a checkout too slow to ask
        return None
    return done.stdout if done.returncode == 0 else None


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 (not a file of ours)
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
