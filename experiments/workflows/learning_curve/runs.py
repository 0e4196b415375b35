"""Child runs for each fraction and seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ...config.experiment import Experiment, load_experiment
from ...config.identity import configuration
from ...errors import RequestError
from ...tracking.run import RunRecord
from ...tracking.store import Store
from ...training.run import train
from ...training.trainer import check_trains_here
from ..child_runs import find_begun, fingerprint, finish_child

FRACTION = "data.train_fraction"
ROLE = "learning-curve"


def load_points(
    sources: Sequence[str], overrides: Mapping[str, str], fractions: Sequence[float], seeds: Sequence[int]
) -> dict[tuple[float, int], Experiment]:
    """The experiment of each fraction and seed, smaller fractions first.

    Raises:
        RequestError: One is no fraction, or the configuration is invalid.
    """
    for key in (FRACTION, "data.train_per_class", "seed"):
        if key in overrides:
            raise RequestError(
                f"{key} is what a learning curve varies: give --fractions 0.1 0.3 1 and --seeds 0 1 2"
            )
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise RequestError(f"--fractions must lie in (0, 1], got {fraction}; 0.1 0.3 1 are customary")
    loaded = {
        (fraction, seed): load_experiment(sources, {**overrides, FRACTION: str(fraction), "seed": str(seed)})
        for fraction in sorted(set(fractions))
        for seed in sorted(set(seeds))
    }
    first = next(iter(loaded.values()))
    check_trains_here(first.trainer, "each run of a learning curve")
    if not first.mlflow.enabled:
        raise RequestError("a learning curve is read from its record: mlflow.enabled must be true")
    return loaded


def find_parent(store: Store, experiment: Experiment) -> RunRecord:
    """The run of this configuration's learning curve, begun by the same command or a new one."""
    kept = {key: value for key, value in configuration(experiment.config).items() if key != FRACTION}
    tags = {"recipe": experiment.name, "role": ROLE, "configuration": fingerprint(kept)}
    for run in find_begun(store, experiment.name, tags):
        return run
    return store.start_run(experiment.name, "learning curve", tags)


def train_points(
    points: Mapping[tuple[float, int], Experiment], store: Store, parent: RunRecord
) -> Iterator[RunRecord]:
    """Each run in turn: as it is recorded below the parent, continued where it was killed, else trained."""
    children = store.child_runs(parent)
    for (fraction, seed), experiment in points.items():
        known = [
            run
            for run in children
            if (run.params.get(FRACTION), run.params.get("seed")) == (str(fraction), str(seed))
        ]
        begin = partial(train, experiment, store, parent=parent)
        yield finish_child(known, store, f"fraction {fraction}, seed {seed}", begin)
