"""`darkroom sweep`: starts the server that trials are forked from, then the sweep."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from experiments.errors import RequestError
from experiments.startup import import_module
from experiments.sweep.worker import start_server


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Both import for seconds, on a core each; hence the server first."""
    for option in ("trials", "workers", "trials_per_gpu"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise RequestError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    start_server(json.dumps([arguments.experiments, dict(overrides)]))
    import_module("experiments.sweep.sweep").run(arguments, overrides)
