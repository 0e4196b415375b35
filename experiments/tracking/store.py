"""MLflow store: create, open, search and start runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import requests
from filelock import FileLock
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from ..errors import RequestError
from .errors import raising_store_errors, short_error
from .record_version import RECORD_VERSION_TAG, continued_label, version_label
from .run import CHECKPOINTS, PARENT_TAG, VERSION_TAG, RunRecord

# What makes the UI show training runs rather than conversations with language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Store:
    """MLflow's store of runs: the one that MLFLOW_TRACKING_URI names, else ./mlflow.db."""

    def __init__(self, client: mlflow.MlflowClient, uri: str) -> None:
        self.client = client
        self.uri = uri

    def start_run(
        self, experiment: str, run_name: str, tags: Mapping[str, str], parent: RunRecord | None = None
    ) -> RunRecord:
        with raising_store_errors():
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
        with raising_store_errors():
            run = self.client.create_run(
                parent.experiment_id,
                run_name=run_name,
                tags={**VERSION_TAG, **tags, PARENT_TAG: parent.run_id},
            )
        return RunRecord(self.client, run)

    def continue_run(self, run: RunRecord) -> None:
        """Marks a run that ended, or was killed, as running again."""
        label = version_label(run.tags)
        with raising_store_errors():
            self.client.update_run(run.run_id, status="RUNNING")
        run.status = "RUNNING"
        if continued_label(label) != label:
            run.set_tags({RECORD_VERSION_TAG: continued_label(label)})
            run.tags[RECORD_VERSION_TAG] = continued_label(label)

    def run(self, run_id: str) -> RunRecord:
        """The run with exactly this id."""
        with raising_store_errors():
            return RunRecord(self.client, self.client.get_run(run_id))

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Makes a call of MLflow's client for a process that has none."""
        with raising_store_errors():
            return getattr(self.client, method)(*arguments, **options)

    def find_run(self, query: str) -> RunRecord:
        """The run with this id, unique beginning of an id, or name.

        Raises:
            RequestError: There is none, or several.
        """
        with raising_store_errors():
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
        with raising_store_errors():
            found = self.client.get_experiment_by_name(experiment)
            runs = self._all_runs([found.experiment_id], "") if found is not None else []
        return [RunRecord(self.client, run) for run in runs]

    def runs_where(self, condition: str) -> list[RunRecord]:
        """All runs that a filter of MLflow admits, such as "tags.recipe = 'digits/cnn'".

        Raises:
            RequestError: It is no such filter.
        """
        with raising_store_errors():
            experiments = [each.experiment_id for each in self.client.search_experiments()]
        try:
            runs = self._all_runs(experiments, condition)
        except MlflowException as error:
            raise RequestError(
                f"MLflow can't read the filter {condition!r} ({short_error(error)}); it is written like "
                "tags.recipe = 'digits/cnn' and metrics.`test/accuracy` > 0.9"
            ) from error
        return [RunRecord(self.client, run) for run in runs]

    def child_runs(self, parent: RunRecord, tags: Mapping[str, str] | None = None) -> list[RunRecord]:
        """The runs below another one, of those only the ones with all of these tags."""
        wanted = {PARENT_TAG: parent.run_id, **(tags or {})}
        conditions = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        with raising_store_errors():
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
    with raising_store_errors():
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
            f"the MLflow store {uri} does not answer ({short_error(error)}). Start its server, set "
            "MLFLOW_TRACKING_URI to another store or unset it for ./mlflow.db, or train unrecorded with "
            "--mlflow.enabled=false"
        ) from error
    return Store(client, uri)


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
