"""Child runs of a parent run: reuse, resume or train each."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from filelock import FileLock, Timeout

from ..errors import RequestError
from ..tracking.record_version import is_outdated, version_label
from ..tracking.run import RunRecord
from ..tracking.run_lifecycle import working_folder
from ..tracking.store import Store
from ..training.result import Result
from ..training.resume import go_on


def fingerprint(configuration: Mapping[str, Any]) -> str:
    """A hash of what the runs have in common, which tells the same command given again."""
    text = json.dumps(configuration, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def find_unfinished(store: Store, name: str, tags: Mapping[str, str]) -> RunRecord | None:
    """The newest run of an experiment that has these tags and was stopped before its end."""
    return next((run for run in find_begun(store, name, tags) if run.status != "FINISHED"), None)


def find_begun(store: Store, name: str, tags: Mapping[str, str]) -> list[RunRecord]:
    """The runs of an experiment that have these tags and are of the present record version, newest first.

    Runs below one of an older version would be mixed with those that the present code trains.
    """
    same = [run for run in store.runs_of(name) if tags.items() <= run.tags.items()]
    current = [run for run in same if not is_outdated(run.tags)]
    if same and not current:
        print(
            f"note: run {same[0].run_id[:8]} of the same command is of record version "
            f"{version_label(same[0].tags)}, before repairs that change numbers: another is begun"
        )
    return current


@contextlib.contextmanager
def exclusive(parent: RunRecord, work: str) -> Iterator[None]:
    """Keeps other processes of this machine away, by a lock that the system frees when this one dies.

    Args:
        parent: The run that tells of those below it.
        work: What that is, such as "cross-validation".

    Raises:
        RequestError: One of them is at it.
    """
    with working_folder(parent) as folder:
        try:
            lock = FileLock(folder / "lock").acquire(timeout=0)
        except Timeout:
            raise RequestError(
                f"run {parent.run_id} is this {work}, and another process trains what is below it; "
                "wait for it, or change a key, such as --seed=1, for one beside it"
            ) from None
        with lock:
            yield


def finish_child(
    known: Sequence[RunRecord], store: Store, called: str, begin: Callable[[], Result]
) -> RunRecord:
    """Returns one child run: as it is recorded, continued where it was killed, else trained.

    Args:
        known: What has been begun of it.
        store: Where it is recorded.
        called: What the screen calls it.
        begin: Trains it.
    """
    finished = [run for run in known if run.status == "FINISHED"]
    stopped = [run for run in known if (run.checkpoint_folder / "last.ckpt").is_file()]
    if finished:
        return finished[0]
    if stopped:
        print(f"{called}: going on with run {stopped[0].run_id[:8]}", flush=True)
        result = go_on(stopped[0], store)
    else:
        for run in known:  # it ended before its first epoch: nothing of it is left to continue
            if run.status == "RUNNING":
                run.end("KILLED")
        print(called, flush=True)
        result = begin()
    assert result.record is not None
    return store.run(result.record.run_id)
