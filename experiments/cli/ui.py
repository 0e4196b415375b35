"""The ui command: starts the MLflow UI."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping

from ..errors import RequestError
from ..tracking.store import open_store


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Becomes `mlflow ui`; a server that is already running is named instead."""
    store = open_store()
    if store.uri.startswith("http"):
        raise RequestError(f"the store {store.uri} is a server and has its UI: open that address")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    os.execv(sys.executable, [*command, "--port", str(arguments.port)])
