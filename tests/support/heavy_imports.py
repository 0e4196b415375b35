"""Which of the heavy libraries a piece of Python imports, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "pytorch_lightning", "timm", "torchmetrics", "mlflow", "optuna", "matplotlib", "pandas")
LOADED = f"""
import sys
status = None
try:
    {{use}}
except SystemExit as stop:
    status = stop.code
print(status, *sorted(set({HEAVY!r}) & sys.modules.keys()))
"""


def loaded(use: str, folder: Path) -> list[str]:
    """The exit status of `use` if it exits, and the heavy libraries that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(use=use)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()
