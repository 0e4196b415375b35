"""Recorded runs to compare: a few that were trained, and others written as training writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.experiments.evaluation.predictions import prediction_frame
from darkroom.experiments.tracking.run import RunRecord
from darkroom.experiments.tracking.store import Store, open_store

NUM_IMAGES = 200


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of digits/cnn, tiny, and one of it yet smaller."""
    from darkroom.experiments.cli.main import main

    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        for widths, seeds in (("[8]", (0, 1)), ("[2]", (0,))):
            for seed in seeds:
                keys = [f"--model.backbone_options.widths={widths}", f"--seed={seed}"]
                assert main(["train", "digits/cnn", "--trainer.max_epochs=2", *keys]) == 0
    return folder


@pytest.fixture
def trained_store(trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(trained_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained_folder / 'mlflow.db'}")
    return open_store()


@pytest.fixture(scope="session")
def written_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.fixture
def written_store(written_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of runs that tests write."""
    monkeypatch.chdir(written_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{written_folder / 'mlflow.db'}")
    return open_store()


Write = Callable[..., RunRecord]


@pytest.fixture
def write(written_store: Store) -> Write:
    """Records a run as training does, with a given share of its images right."""

    def record(
        recipe: str,
        right: float | Sequence[bool],
        params: Mapping[str, Any] | None = None,
        split: str = "test",
        status: str = "FINISHED",
        prefix: str = "image",
        tags: Mapping[str, str] | None = None,
        fingerprint: str = "f",
        groups: Sequence[str] | None = None,
        **options: Any,
    ) -> RunRecord:
        run = written_store.start_run(recipe, options.pop("run_name", "seed"), tags or {}, **options)
        given = {"name": recipe, "seed": 0, "num_parameters": 10, "num_train_images": 100, **(params or {})}
        run.log_params(given)
        ids, targets, probabilities = said(right, int(given["seed"]), prefix)
        accuracy = float((probabilities.argmax(1) == targets).mean())
        run.log_metrics({f"{'best' if split == 'val' else split}/accuracy": accuracy})
        run.log_metrics({"epoch_seconds": 2.0, "train/loss": 1.0, "val/loss": 1.0, "val/accuracy": 0.5}, 1)
        if status == "FINISHED":
            with run.artifacts() as folder:
                for name in ("predictions", "data"):
                    (folder / name).mkdir()
                frame = prediction_frame(ids, targets, probabilities, groups)
                frame.to_parquet(folder / "predictions" / f"{split}.parquet")
                facts = {"class_names": ["a", "b", "c"], "fingerprint": {"test": fingerprint}}
                (folder / "data" / "facts.json").write_text(json.dumps(facts))
        run.end(status)
        return written_store.run(run.run_id)

    return record


def said(right: float | Sequence[bool], seed: int, prefix: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, targets of three classes, and probabilities that are right about some of them."""
    generator = np.random.default_rng(seed)
    targets = np.arange(NUM_IMAGES) % 3
    hits = generator.random(NUM_IMAGES) < right if isinstance(right, float) else np.asarray(right)
    chosen = np.where(hits, targets, (targets + 1) % 3)
    probabilities = np.full((NUM_IMAGES, 3), 0.1, np.float32)
    probabilities[np.arange(NUM_IMAGES), chosen] = 0.8
    return [f"{prefix}/{number:03}" for number in range(NUM_IMAGES)], targets, probabilities
