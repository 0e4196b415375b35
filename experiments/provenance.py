"""What a number depends on besides its configuration: code, packages, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch


def packages() -> str:
    """All installed packages as a requirements file."""
    # By the names of their folders, name-version.dist-info: reading the metadata takes a third of a second.
    folders = {path.stem for entry in sys.path for path in Path(entry or ".").glob("*.dist-info")}
    return "\n".join(sorted((folder.replace("-", "==", 1) for folder in folders), key=str.lower)) + "\n"


def hardware() -> dict[str, Any]:
    """Machine, processors, memory in GiB, accelerators and thread count."""
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
def git_state() -> dict[str, str] | None:
    """Commit and uncommitted diff (new files named) of the checkout one works in; None outside of any.

    Asked once: what is edited later is not what this process, and those forked from it, have imported.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit.strip(),
        "status": _git("status", "--porcelain") or "",
        "diff": _git("diff", "HEAD", "--binary") or "",
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, errors="replace", timeout=30
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
