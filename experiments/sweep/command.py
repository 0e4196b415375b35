"""`darkroom sweep`: starts the server that trials are forked from, then the sweep; or has others do so."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from ..errors import RequestError
from ..runtime.startup import import_module
from .execution.worker import start_server


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    """Sweeps on this machine, or places the same command on several."""
    for option in ("trials", "workers", "trials_per_gpu", "machines"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise RequestError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    if arguments.launcher != "local":
        status: int = import_module("darkroom.experiments.sweep.launchers.command").run(arguments, overrides)
        return status
    for option in ("machines", "launcher_option", "dry_run"):
        if getattr(arguments, option):
            raise RequestError(
                f"--{option.replace('_', '-')} is for --launcher ray or slurm, which is missing"
            )
    # Both import for seconds, on a core each; hence the server first.
    start_server(json.dumps([arguments.experiments, dict(overrides)]))
    import_module("darkroom.experiments.sweep.run").run(arguments, overrides)
    return 0
