"""Selects runs by id, name, recipe, sweep or filter."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RequestError
from .run import RunRecord
from .store import Store


def select_runs(store: Store, queries: Sequence[str], where: str | None) -> list[RunRecord]:
    """All runs that were asked for, each once, in the order asked.

    Raises:
        RequestError: A query or the filter means no run.
    """
    if not queries and where is None:
        raise RequestError(
            "which runs? Name runs, recipes or sweeps, or give a filter such as "
            "--where \"tags.recipe = 'digits/cnn'\""
        )
    found = {run.run_id: run for query in queries for run in _meant(store, query)}
    if where is not None:
        admitted = {run.run_id: run for run in store.runs_where(where)}
        found = {key: run for key, run in admitted.items() if not queries or key in found}
        if not found:
            raise RequestError(f"no run is there for --where {where!r}; darkroom ui shows what is recorded")
    return list(found.values())


def _meant(store: Store, query: str) -> list[RunRecord]:
    """A recipe's runs but for trials of its sweeps, boosted members and reruns; those below a run; or one."""
    runs = store.runs_of(query)
    if runs:
        own = [run for run in runs if run.tags.get("role") != "boosted"]
        return [run for run in own if not {"study", "rerun_of"} & run.tags.keys()]
    run = store.find_run(query)
    below = [] if run.tags.get("role") == "ensemble" else store.child_runs(run)
    return below or [run]


def usable(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The runs that have finished, and a word on each kind of the others."""
    finished = [run for run in runs if run.status == "FINISHED" and run.is_training]
    kinds = {
        "were stopped early by their sweep": [run for run in runs if run.tags.get("pruned") == "true"],
        "failed": [run for run in runs if run.status == "FAILED"],
        "were interrupted": [
            run for run in runs if run.status == "KILLED" and run.tags.get("pruned") != "true"
        ],
        "have not finished": [run for run in runs if run.status not in ("FINISHED", "FAILED", "KILLED")],
    }
    return finished, [left_out(members, reason) for reason, members in kinds.items() if members]


def left_out(runs: Sequence[RunRecord], reason: str) -> str:
    """A sentence on runs that are not compared.

    >>> from types import SimpleNamespace
    >>> left_out([SimpleNamespace(run_id="0123456789")], "failed")
    'left out: 1 run that failed (01234567)'
    """
    named = ", ".join(run.run_id[:8] for run in runs[:5]) + (", ..." if len(runs) > 5 else "")
    return f"left out: {len(runs)} run{'s' if len(runs) > 1 else ''} that {reason} ({named})"
