"""The store that runs are recorded in."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from darkroom.experiments.tracking.store import open_store

OPENER = "from darkroom.experiments.tracking.store import open_store; open_store()"


@pytest.mark.parametrize("tables", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_a_store_whose_creation_was_killed_is_created_by_the_next_command(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    opener = subprocess.Popen([sys.executable, "-c", OPENER])
    unfinished = tmp_path / "mlflow.db.unfinished"
    pages = 4096 * tables  # SQLite gives each table at least one
    while not unfinished.exists() or unfinished.stat().st_size < pages:
        assert opener.poll() is None
        time.sleep(0.001)
    opener.kill()
    opener.wait()
    assert not (tmp_path / "mlflow.db").exists()
    assert open_store().runs_of("digits/cnn") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlruns"]
