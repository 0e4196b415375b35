"""One thread for all tests: small networks train no slower on it, and a busy machine harms them less."""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported, here and in child processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: "sweep" not in item.path.parts)
