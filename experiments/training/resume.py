"""Resumes a stopped run from its last checkpoint."""

from __future__ import annotations

from ..errors import RequestError
from ..tracking.provenance_diff import recorded_threads, repairs_told
from ..tracking.recorded_experiment import recorded_experiment
from ..tracking.run import RunRecord
from ..tracking.store import Store, open_store
from .callbacks.checkpoints import read_checkpoint
from .distributed.launcher import help_train
from .result import Result
from .run import train


def resume(query: str) -> Result | None:
    """Continues the run that is meant; None where this machine only trains along with the first of several.

    Raises:
        RequestError: It has finished, only tells of the runs below it, or has left no checkpoint.
    """
    store = open_store()
    record = find_resumable(store, query)
    return None if help_train(recorded_experiment(record).trainer) else go_on(record, store)


def find_resumable(store: Store, query: str) -> RunRecord:
    """The run, if it was killed or failed and can go on.

    Raises:
        RequestError: It has finished, is a trial, is only of the runs below it, or has left no checkpoint.
    """
    record = store.find_run(query)
    if record.status == "FINISHED":
        raise RequestError(f"run {record.run_id} ({record.name}) has finished; there is nothing to resume")
    if record.is_trial:
        raise RequestError(
            f"run {record.run_id} ({record.name}) is a trial of the sweep {record.tags['study']}, which "
            "alone goes on with it: give the same darkroom sweep command again"
        )
    if store.child_runs(record):
        raise RequestError(
            f"run {record.run_id} ({record.name}) tells of the runs below it: the command that it was begun "
            "with, given again, goes on with them"
        )
    if not (record.checkpoint_folder / "last.ckpt").is_file():
        raise RequestError(
            f"run {record.run_id} ({record.name}) has no checkpoint in {record.checkpoint_folder.resolve()}: "
            "it ended before the first was written, or on another machine. Train it anew"
        )
    return record


def go_on(record: RunRecord, store: Store) -> Result:
    """Trains a run that stopped to its end, as it was recorded, in the same MLflow run.

    Raises:
        RequestError: Its images are others by now, or its checkpoint can't be read.
    """
    experiment = recorded_experiment(record)
    for line in repairs_told(record):
        print(f"note: {line}")
    read_checkpoint(record.checkpoint_folder / "last.ckpt")  # refused before the run is touched
    experiment.model.start_from_scratch()  # the checkpoint's weights follow
    with recorded_threads(record):
        return train(experiment, store, resumed=record)
