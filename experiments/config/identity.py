"""When two runs are of one configuration: keys that no number depends on, and keys that came later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import flatten
from experiments.errors import RequestError
from experiments.recorded_data import parse_recorded
from experiments.tracking import RunRecord

PLACES = ("data.root", "data.table", "data.path", "data.cache")  # where files lie says nothing of a run
ASIDE = ("mlflow", "sweep", "claim")  # sections that no number depends on
INERT = ("data.download", "trainer.progress", *PLACES)


def in_common(config: Mapping[str, Any], *varied: str) -> dict[str, Any]:
    """The keys of a configuration on which numbers depend, but for those that vary, flat."""
    sections = {key: value for key, value in config.items() if key not in ASIDE}
    return {key: value for key, value in flatten(sections).items() if key not in (*INERT, *varied)}


def with_later_keys(runs: Sequence[RunRecord]) -> list[dict[str, str]]:
    """The runs' params; a key that one lacks because it is older has the value that it stands for by default.

    A recipe that does not name a key trains today as it did before the key could be given, unless the key
    came with a repair: then the run has the value of before it.
    """
    everything = {key for run in runs for key in run.params}
    defaults: dict[tuple[object, ...], Mapping[str, str]] = {}  # the same for all that lack the same
    complete = []
    for run in runs:
        lacking = frozenset(everything - run.params.keys())
        kind = (lacking, run.params.get("data"), run.params.get("model"))
        if lacking and kind not in defaults:
            defaults[kind] = {key: value for key, value in _parsed(run).items() if key in lacking}
        complete.append({**defaults.get(kind, {}), **run.params})
    return complete


def _parsed(run: RunRecord) -> dict[str, str]:
    """Its configuration as the present code reads it; nothing where it has keys that are no more."""
    try:
        experiment = parse_recorded(run, {})
    except RequestError:
        return {}
    return {key: str(value) for key, value in flatten(experiment.config).items()}
