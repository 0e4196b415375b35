"""Recorded runs to make ensembles of."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.tracking import Store, open_store

TRAINED = ["train", "digits/cnn", "--trainer.max_epochs=2", "--mlflow.system_metrics=false"]
SMALL = [*TRAINED, "--model.backbone_options.widths=[8]"]


@pytest.fixture(scope="session")
def members_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of digits/cnn, tiny; one of other widths; and one judged on other images."""
    from experiments.__main__ import main

    folder = tmp_path_factory.mktemp("members")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        for seed in range(2):
            assert main([*SMALL, f"--seed={seed}", f"--mlflow.run_name=seed{seed}"]) == 0
        wide = "--model.backbone_options.widths=[12]"
        assert main([*TRAINED, wide, "--mlflow.run_name=wide"]) == 0
        assert main([*SMALL, "--data.split_seed=1", "--mlflow.run_name=elsewhere"]) == 0
    return folder


@pytest.fixture
def members_store(members_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Their store, and their folder to stand in."""
    monkeypatch.chdir(members_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{members_folder / 'mlflow.db'}")
    return open_store()
