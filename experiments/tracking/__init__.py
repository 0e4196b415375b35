"""The record in MLflow: stores, runs, artifacts and provenance."""

import logging
import os

# Settings that MLflow reads when it is imported. A server that is away for a minute is waited for.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # what they say, our errors say shorter
