"""Recorded runs, cross-validations and bagged runs to make ensembles of."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkroom.experiments.tracking.store import Store, open_store

TRAINED = ["train", "digits/cnn", "--trainer.max_epochs=2", "--mlflow.system_metrics=false"]
SMALL = [*TRAINED, "--model.backbone_options.widths=[8]"]


@pytest.fixture(scope="session")
def members_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of digits/cnn, tiny; one of other widths; and one judged on other images."""
    from darkroom.experiments.cli.main import main

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


@pytest.fixture(scope="session")
def folded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cross-validations of digits/cnn, tiny, one of them on bootstrap samples of a half."""
    from darkroom.experiments.cli.main import main

    folder = tmp_path_factory.mktemp("folded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        assert main([*SMALL, "--folds=2"]) == 0
        drawn = ["--data.train_fraction=0.5", "--data.bootstrap=true"]
        assert main([*SMALL, "--folds=3", "--seed=1", *drawn]) == 0
    return folder


@pytest.fixture
def folded_store(folded_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(folded_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folded_folder / 'mlflow.db'}")
    return open_store()


@pytest.fixture(scope="session")
def bagged_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of digits/cnn, tiny, each trained on a bootstrap sample of its own."""
    from darkroom.experiments.cli.main import main

    folder = tmp_path_factory.mktemp("bagged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        for seed in range(2):
            assert main([*SMALL, "--data.bootstrap=true", f"--seed={seed}"]) == 0
    return folder


@pytest.fixture
def bagged_store(bagged_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(bagged_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{bagged_folder / 'mlflow.db'}")
    return open_store()
