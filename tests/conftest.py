"""One thread for all tests: small networks train no slower on it, and a busy machine harms them less."""

import os
from importlib.util import find_spec

import pytest

from darkroom.experiments.runtime.extras import EXTRAS

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported, here and in child processes


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose library is not installed, and says which extra brings it."""
    for mark in item.iter_markers("extra"):
        (library,) = mark.args
        if find_spec(library) is None:
            pytest.skip(f"needs {library}, of the extra {EXTRAS[library]}")
