"""Translates MLflow exceptions to StoreError."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import mlflow
import requests
from mlflow.exceptions import MlflowException

from ..errors import RunError

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # what they say, our errors say shorter


class StoreError(RunError):
    """The store did not take what was to be recorded."""


@contextlib.contextmanager
def raising_store_errors() -> Iterator[None]:
    """Turns what MLflow raises into a StoreError that says what was lost and what to do."""
    try:
        yield
    except (MlflowException, requests.RequestException, OSError) as error:
        raise StoreError(
            f"the MLflow store {mlflow.get_tracking_uri()} failed: {short_error(error)}. All that it took so "
            "far is there; see that it answers and has space, then continue with "
            "darkroom train --resume RUN"
        ) from error


def short_error(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
