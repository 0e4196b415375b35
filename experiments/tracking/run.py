"""RunRecord: write and read one MLflow run."""

from __future__ import annotations

import contextlib
import copy
import importlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from ..errors import RequestError
from .errors import raising_store_errors, short_error
from .record_version import RECORD_VERSION, RECORD_VERSION_TAG

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
# Roles of runs that trained no network: they tell of those below them, or of steps that were tried.
NOT_TRAINED = ("reproduction", "learning-curve", "cross_validation", "lr-range-test", "batch-size-test")
PARENT_TAG = "mlflow.parentRunId"
VERSION_TAG = {RECORD_VERSION_TAG: str(RECORD_VERSION)}  # of every run that is created
CHECKPOINTS = Path("mlruns") / "checkpoints"  # of runs under way, on the machine that trains
MAX_PARAM_LENGTH = 6000
BATCH_SIZE = 100  # params in one call, MLflow's limit


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
        with raising_store_errors():
            for start in range(0, len(params), BATCH_SIZE):
                self._client.log_batch(self.run_id, params=params[start : start + BATCH_SIZE])

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Records all values at `step` in one call, which the store takes whole or not at all."""
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        with raising_store_errors():
            self._client.log_batch(self.run_id, metrics=metrics)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        with raising_store_errors():
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    @contextlib.contextmanager
    def artifacts(self) -> Iterator[Path]:
        """A folder to write artifacts into; they are uploaded together at the end of the block."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            with raising_store_errors():
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
        with raising_store_errors(), mlflow.start_run(run_id=self.run_id), _packages_known():
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
        with raising_store_errors():
            self._client.set_terminated(self.run_id, status)
        self.status = status

    # Reading ------------------------------------------------------------------------------------

    def reread(self) -> RunRecord:
        """The same run with what has been recorded meanwhile."""
        with raising_store_errors():
            return RunRecord(self._client, self._client.get_run(self.run_id))

    def last_epoch(self, prefix: str = "") -> int:
        """The last epoch whose metrics are recorded, under names that begin so; 0 before the first."""
        return max(self.history([f"{prefix}train/loss"]), default=0)

    def history(self, names: Iterable[str] | None = None) -> dict[int, dict[str, float]]:
        """Every metric of the run, or those named, by the epoch it was recorded at."""
        rows: dict[int, dict[str, float]] = {}
        with raising_store_errors():
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
                f"run {self.run_id} ({self.name}, {self.status}) has no artifact {artifact}: "
                f"{short_error(error)}"
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
