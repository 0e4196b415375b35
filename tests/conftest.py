"""One thread for all tests: small networks train no slower on it, and a busy machine harms them less."""

import os
from importlib.util import find_spec

import pytest

from experiments.extras import EXTRAS

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported, here and in child processes

# Files in the order of their time, so that no process is left alone with one of them at the end.
LONGEST = (
    "test_launchers.py",
    "test_sweep.py",
    "test_train.py",
    "test_ranks.py",
    "test_interruptions.py",
    "test_kills.py",
    "test_ensemble.py",
    "test_nodes.py",
    "test_rerun.py",
    "test_trial_folds.py",
    "test_several_devices.py",
    "test_benchmarks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (order.get(item.path.name, len(order)), "sweep" not in item.path.parts))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose library is not installed, and says which extra brings it."""
    for mark in item.iter_markers("extra"):
        (library,) = mark.args
        if find_spec(library) is None:
            pytest.skip(f"needs {library}, of the extra {EXTRAS[library]}")
