"""Where runs are recorded: MLflow's store, opened, written and read back."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

# Settings that MLflow reads when it is imported. A server that is away for a minute is waited for.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
import numpy as np
import pandas as pd
import requests
from filelock import FileLock
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types import Schema, TensorSpec

from experiments.errors import RequestError, RunError
from experiments.record_version import (
    RECORD_VERSION,
    RECORD_VERSION_TAG,
    continued_label,
    version_label,
)

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

# What makes the UI show training runs rather than conversations with language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
# Roles of runs that trained no network: they tell of those below them, or of steps that were tried.
NOT_TRAINED = ("reproduction", "learning-curve", "cross_validation", "lr-range-test", "batch-size-test")
PARENT_TAG = "mlflow.parentRunId"
VERSION_TAG = {RECORD_VERSION_TAG: str(RECORD_VERSION)}  # of every run that is created
CHECKPOINTS = Path("mlruns") / "checkpoints"  # of runs under way, on the machine that trains
MAX_PARAM_LENGTH = 6000
BATCH_SIZE = 100  # params in one call, MLflow's limit

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # what they say, our errors say shorter


class StoreError(RunError):
    """The store did not take what was to be recorded."""


class RunRecord:
    """One run in the store, to be written while it lasts and read back afterwards."""

    def __init__(self, client: mlflow.MlflowClient, run: Run) -> None:
        self._client = client
        self.run_id: str = run.info.run_id
        self.name: str = run.info.run_name
        self.experiment_id: str = run.info.experiment_id
        self.status: str = run.info.status
        self.tags: dict[str, str] = dict(run.data.tags)
        self.metrics: dict[str, float] = dict(run.data.metrics)
        self.params: dict[str, str] = dict(run.data.params)

    def through(self, client: Any) -> RunRecord:
        """The same run, written by another client; None makes a copy that can be sent to a process."""
        other = copy.copy(self)
        other._client = client
        return other

    @property
    def is_remote(self) -> bool:
        """Whether a server keeps it."""
        return bool(mlflow.get_tracking_uri().startswith("http"))

    @property
    def is_training(self) -> bool:
        """Whether a network was trained in it, to be judged."""
        return self.tags.get("role") not in NOT_TRAINED

    @property
    def is_trial(self) -> bool:
        """Whether a sweep trained it to judge a configuration, on validation alone."""
        return self.tags.get("role") in ("trial", "confirmation")

    @property
    def checkpoint_folder(self) -> Path:
        """Where this run's checkpoints lie until it has ended."""
        return CHECKPOINTS / self.run_id

    # Writing ------------------------------------------------------------------------------------

    def log_params(self, values: Mapping[str, Any]) -> None:
        params = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in values.items()]
        with _one_clear_paragraph():
            for start in range(0, len(params), BATCH_SIZE):
                self._client.log_batch(self.run_id, params=params[start : start + BATCH_SIZE])

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Records all values at `step` in one call, which the store takes whole or not at all."""
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        with _one_clear_paragraph():
            self._client.log_batch(self.run_id, metrics=metrics)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        with _one_clear_paragraph():
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    @contextlib.contextmanager
    def artifacts(self) -> Iterator[Path]:
        """A folder to write artifacts into; they are uploaded together at the end of the block."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            with _one_clear_paragraph():
                self._client.log_artifacts(self.run_id, folder)

    def log_model(
        self, model: Any, image_shape: tuple[int, int, int], example: Any, metadata: dict[str, Any]
    ) -> None:
        """Logs a module from uint8 images (N, C, H, W) to probabilities as the run's model.

        What users need beside it stands in its `metadata`, `class_names` among it.

        Stored as a traced graph ("pt2"), which needs none of our code and can't execute any on loading.
        """
        import torch

        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *image_shape), name=None)]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(metadata["class_names"])), name=None)]),
        )
        with _one_clear_paragraph(), mlflow.start_run(run_id=self.run_id), _packages_known():
            mlflow.pytorch.log_model(
                model,
                name="model",
                signature=signature,
                input_example=example,
                # Inferring them would import the model in another process, for nine seconds.
                pip_requirements=[
                    f"torch=={torch.__version__.partition('+')[0]}",
                    f"mlflow=={mlflow.__version__}",
                ],
                metadata=metadata,
                serialization_format="pt2",
                validate_serving_input=False,  # loads it and predicts, which our tests do once and for all
            )

    def end(self, status: Status) -> None:
        with _one_clear_paragraph():
            self._client.set_terminated(self.run_id, status)
        self.status = status

    # Reading ------------------------------------------------------------------------------------

    def reread(self) -> RunRecord:
        """The same run with what has been recorded meanwhile."""
        with _one_clear_paragraph():
            return RunRecord(self._client, self._client.get_run(self.run_id))

    def last_epoch(self, prefix: str = "") -> int:
        """The last epoch whose metrics are recorded, under names that begin so; 0 before the first."""
        return max(self.history([f"{prefix}train/loss"]), default=0)

    def history(self, names: Iterable[str] | None = None) -> dict[int, dict[str, float]]:
        """Every metric of the run, or those named, by the epoch it was recorded at."""
        rows: dict[int, dict[str, float]] = {}
        with _one_clear_paragraph():
            for name in self.metrics if names is None else names:
                for metric in self._client.get_metric_history(self.run_id, name):
                    rows.setdefault(metric.step, {})[name] = metric.value
        return rows

    def read_text(self, artifact: str) -> str:
        return self.download(artifact).read_text()

    def download(self, artifact: str) -> Path:
        """A local path of an artifact, such as checkpoints/best.ckpt.

        Raises:
            RequestError: The run has no such artifact.
        """
        try:
            path = mlflow.artifacts.download_artifacts(
                run_id=self.run_id, artifact_path=artifact, tracking_uri=mlflow.get_tracking_uri()
            )
        except (MlflowException, OSError) as error:
            raise RequestError(
                f"run {self.run_id} ({self.name}, {self.status}) has no artifact {artifact}: {_short(error)}"
            ) from error
        return Path(path)

    def stored_predictions(self, split: str) -> pd.DataFrame:
        """The same as it is stored: of a binary task `prob_1` alone.

        Raises:
            RequestError: The run has none of this split.
        """
        return pd.read_parquet(self.download(f"predictions/{split}.parquet"))

    def predictions(self, split: str) -> pd.DataFrame:
        """What the run's chosen checkpoint said: `id`, `target`, `prob_0` ... for each image of a split.

        Multi-label runs have `target_0` ... in place of `target`.
        """
        frame = self.stored_predictions(split)
        if "prob_0" not in frame:
            frame.insert(list(frame.columns).index("prob_1"), "prob_0", 1 - frame["prob_1"])
        return frame


class Store:
    """MLflow's store of runs: the one that MLFLOW_TRACKING_URI names, else ./mlflow.db."""

    def __init__(self, client: mlflow.MlflowClient, uri: str) -> None:
        self.client = client
        self.uri = uri

    def start_run(
        self, experiment: str, run_name: str, tags: Mapping[str, str], parent: RunRecord | None = None
    ) -> RunRecord:
        with _one_clear_paragraph():
            found = self.client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            experiment_id = (
                found.experiment_id
                if found
                else self.client.create_experiment(experiment, tags=EXPERIMENT_TAGS)
            )
            parent_tag = {PARENT_TAG: parent.run_id} if parent else {}
            run = self.client.create_run(
                experiment_id, run_name=run_name, tags={**VERSION_TAG, **tags, **parent_tag}
            )
        return RunRecord(self.client, run)

    def start_child(self, parent: RunRecord, run_name: str, tags: Mapping[str, str]) -> RunRecord:
        """A run below another one, in its experiment."""
        with _one_clear_paragraph():
            run = self.client.create_run(
                parent.experiment_id,
                run_name=run_name,
                tags={**VERSION_TAG, **tags, PARENT_TAG: parent.run_id},
            )
        return RunRecord(self.client, run)

    def continue_run(self, run: RunRecord) -> None:
        """Marks a run that ended, or was killed, as running again."""
        label = version_label(run.tags)
        with _one_clear_paragraph():
            self.client.update_run(run.run_id, status="RUNNING")
        run.status = "RUNNING"
        if continued_label(label) != label:
            run.set_tags({RECORD_VERSION_TAG: continued_label(label)})
            run.tags[RECORD_VERSION_TAG] = continued_label(label)

    def run(self, run_id: str) -> RunRecord:
        """The run with exactly this id."""
        with _one_clear_paragraph():
            return RunRecord(self.client, self.client.get_run(run_id))

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Makes a call of MLflow's client for a process that has none."""
        with _one_clear_paragraph():
            return getattr(self.client, method)(*arguments, **options)

    def find_run(self, query: str) -> RunRecord:
        """The run with this id, unique beginning of an id, or name.

        Raises:
            RequestError: There is none, or several.
        """
        with _one_clear_paragraph():
            experiments = [e.experiment_id for e in self.client.search_experiments()]
            quote = '"' if "'" in query else "'"
            runs = self._all_runs(experiments, f"attributes.run_name = {quote}{query}{quote}")
            if not runs and query.isalnum():  # as ids are; of other signs some stand for any
                runs = self._all_runs(experiments, f"attributes.run_id LIKE '{query}%'")
        if len(runs) == 1:
            return RunRecord(self.client, runs[0])
        if not runs:
            raise RequestError(
                f"no run in {self.uri} has the id or name {query!r}; darkroom ui shows what is there"
            )
        listed = ", ".join(f"{run.info.run_id[:8]} ({run.info.run_name})" for run in runs[:5])
        raise RequestError(f"{len(runs)} runs are called {query!r}: {listed}; give more of the id")

    def runs_of(self, experiment: str) -> list[RunRecord]:
        """All runs of an experiment, the newest first; none where there is no such experiment."""
        with _one_clear_paragraph():
            found = self.client.get_experiment_by_name(experiment)
            runs = self._all_runs([found.experiment_id], "") if found is not None else []
        return [RunRecord(self.client, run) for run in runs]

    def runs_where(self, condition: str) -> list[RunRecord]:
        """All runs that a filter of MLflow admits, such as "tags.recipe = 'digits/cnn'".

        Raises:
            RequestError: It is no such filter.
        """
        with _one_clear_paragraph():
            experiments = [each.experiment_id for each in self.client.search_experiments()]
        try:
            runs = self._all_runs(experiments, condition)
        except MlflowException as error:
            raise RequestError(
                f"MLflow can't read the filter {condition!r} ({_short(error)}); it is written like "
                "tags.recipe = 'digits/cnn' and metrics.`test/accuracy` > 0.9"
            ) from error
        return [RunRecord(self.client, run) for run in runs]

    def child_runs(self, parent: RunRecord, tags: Mapping[str, str] | None = None) -> list[RunRecord]:
        """The runs below another one, of those only the ones with all of these tags."""
        wanted = {PARENT_TAG: parent.run_id, **(tags or {})}
        conditions = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        with _one_clear_paragraph():
            runs = self._all_runs([parent.experiment_id], conditions)
        return [RunRecord(self.client, run) for run in runs]

    def _all_runs(self, experiment_ids: list[str], filter_string: str) -> list[Run]:
        found: list[Run] = []
        token: str | None = None
        while experiment_ids:
            page = self.client.search_runs(
                experiment_ids, filter_string, ViewType.ACTIVE_ONLY, 1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                break
        return found


@contextlib.contextmanager
def system_metrics(record: RunRecord | None) -> Iterator[None]:
    """Has MLflow watch the machine meanwhile, from a thread of its own, and record it with the run.

    Where the store is away it stops watching, and leaves it to the work itself to say so.
    """
    if record is None:
        yield
        return
    with _one_clear_paragraph():
        monitor: Any = SystemMetricsMonitor(record.run_id, resume_logging=True)  # type: ignore[no-untyped-call]
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def open_store() -> Store:
    """Opens the store, creating it where it is a database that does not exist yet.

    Raises:
        RequestError: It does not answer, or can't be created.
    """
    uri = mlflow.get_tracking_uri()
    try:
        if uri.startswith("http"):
            # MLflow itself would ask again for minutes.
            requests.get(f"{uri.rstrip('/')}/health", timeout=10).raise_for_status()
        # Processes that create one SQLite store together crash each other.
        CHECKPOINTS.mkdir(parents=True, exist_ok=True)
        with FileLock(CHECKPOINTS / ".store.lock"):
            _create_database(uri)
            client = mlflow.MlflowClient(uri)
            client.search_experiments(max_results=1)
    except Exception as error:  # whatever a database driver or server may raise
        raise RequestError(
            f"the MLflow store {uri} does not answer ({_short(error)}). Start its server, set "
            "MLFLOW_TRACKING_URI to another store or unset it for ./mlflow.db, or train unrecorded with "
            "--mlflow.enabled=false"
        ) from error
    return Store(client, uri)


@contextlib.contextmanager
def _packages_known() -> Iterator[None]:
    """Spares MLflow a second of looking up what all installed packages bring: it needs these two."""
    requirements_utils: Any = importlib.import_module("mlflow.utils.requirements_utils")
    before = requirements_utils._MODULES_TO_PACKAGES
    requirements_utils._MODULES_TO_PACKAGES = before or {"torch": ["torch"], "mlflow": ["mlflow"]}
    try:
        yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = before


def _create_database(uri: str) -> None:
    """Creates the SQLite file that a URI names, where it is missing, whole or not at all.

    MLflow would create it by one migration after the other, and never open again what it had half
    created when it was killed.
    """
    if not uri.startswith("sqlite:///"):
        return
    path = Path(uri.removeprefix("sqlite:///"))
    if path.exists():
        return
    unfinished = path.with_name(f"{path.name}.unfinished")
    for left in path.parent.glob(f"{unfinished.name}*"):  # and the journal of what was not committed
        left.unlink()
    mlflow.MlflowClient(f"sqlite:///{unfinished}").search_experiments(max_results=1)
    unfinished.rename(path)


@contextlib.contextmanager
def _one_clear_paragraph() -> Iterator[None]:
    """Turns what MLflow raises into a StoreError that says what was lost and what to do."""
    try:
        yield
    except (MlflowException, requests.RequestException, OSError) as error:
        raise StoreError(
            f"the MLflow store {mlflow.get_tracking_uri()} failed: {_short(error)}. All that it took so "
            "far is there; see that it answers and has space, then continue with "
            "darkroom train --resume RUN"
        ) from error


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
