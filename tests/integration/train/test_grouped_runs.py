"""Runs on images in groups, such as tracks of a traffic sign, whose mistakes come together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from support.training import run_id

from darkroom.experiments.tracking.prediction_artifacts import read_outcome
from darkroom.experiments.tracking.run import RunRecord
from darkroom.experiments.tracking.store import Store, open_store
from darkroom.experiments.workflows.ensemble.members import read_members
from darkroom.experiments.workflows.ensemble.report import judge

NUM_TRACKS, LENGTH = 90, 10  # images of a track
CLASSES = ("give_way", "stop", "yield")
SHORT = ["--trainer.max_epochs=4", "--mlflow.system_metrics=false"]


def draw_tracks(folder: Path) -> Path:
    """Grey images whose brightness tells their class; a whole track is lighter or darker than its class."""
    generator = np.random.default_rng(0)
    rows = []
    for track in range(NUM_TRACKS):
        label = track % 3
        level = 60 + 60 * label + generator.normal(0, 22)
        for number in range(LENGTH):
            pixels = generator.normal(level + generator.normal(0, 6), 4, (8, 8)).clip(0, 255)
            name = f"{track:03}_{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            row = {"image": name, "sign": CLASSES[label], "track": f"track{track:03}", "day": track % 2}
            rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "signs.csv", index=False)
    recipe = {
        "name": "signs/cnn",
        "data": {
            "class_path": "ImageTable",
            "init_args": {
                "table": str(folder / "signs.csv"),
                "image_column": "image",
                "label_columns": ["sign"],
                "group_column": "track",
                "test_fraction": 0.5,
                "val_fraction": 0.2,
                "cache": str(folder / "cache"),
            },
        },
        "model": {
            "class_path": "ImageClassifier",
            "init_args": {"backbone": "small_cnn", "backbone_options": {"widths": [8]}},
        },
    }
    path = folder / "signs.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_tracks(tmp_path_factory.mktemp("signs"))


@pytest.fixture(scope="module")
def trained_tracks(recipe: Path) -> Path:
    """Two seeds, an ensemble of them, and a cross-validation."""
    from darkroom.experiments.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe.parent)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{recipe.parent / 'mlflow.db'}")
        for seed in range(2):
            own = [f"--seed={seed}", f"--mlflow.run_name=seed{seed}"]
            assert main(["train", str(recipe), *SHORT, *own]) == 0
        assert main(["ensemble", "seed0", "seed1", "--method=soft_voting"]) == 0
        assert main(["train", str(recipe), *SHORT, "--folds=2", "--mlflow.run_name=folded"]) == 0
    return recipe.parent


@pytest.fixture
def track_store(trained_tracks: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(trained_tracks)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained_tracks / 'mlflow.db'}")
    return open_store()


def recorded(store: Store, name: str) -> RunRecord:
    """The run of a name; the cross-validation is called as its folds are."""
    (run,) = [
        run for run in store.runs_of("signs/cnn") if run.name == name and run.tags.get("role") != "fold"
    ]
    return run


@pytest.mark.parametrize("name", ["seed0", "soft_voting of 2", "folded"])
def test_groups_stand_beside_the_predictions(name: str, track_store: Store) -> None:
    run = recorded(track_store, name)
    for split in ("val",) if name == "folded" else ("val", "test"):
        frame = run.predictions(split)
        outputs = [f"{output}_{index}" for output in ("prob", "log_odds") for index in range(3)]
        assert list(frame.columns) == ["id", "group", "target", *outputs]
        assert (frame["group"] == "track" + frame["id"].str[:3]).all()
        outcome = read_outcome(run, split)
        assert outcome.groups is not None
        assert outcome.groups.tolist() == frame["group"].tolist()
        assert len(set(outcome.groups)) * LENGTH == len(frame)


def test_groups_stand_in_the_recorded_split(track_store: Store) -> None:
    frame = pd.read_parquet(track_store.find_run("seed0").download("data/split.parquet"))
    assert (frame["group"] == "track" + frame["id"].str[:3]).all()
    assert frame.groupby("group")["split"].nunique().eq(1).all()


def test_a_run_without_groups_has_no_such_column(recipe: Path, track_store: Store, capsys) -> None:
    from darkroom.experiments.cli.main import main

    assert main(["train", str(recipe), *SHORT, "--data.group_column=null"]) == 0
    run = track_store.find_run(run_id(capsys.readouterr().out))
    assert "group" not in run.predictions("test")
    assert "group" not in pd.read_parquet(run.download("data/split.parquet"))
    outcome = read_outcome(run, "test")
    assert (outcome.groups, outcome.grouped_by) == (None, None)
    assert read_outcome(track_store.find_run("seed0"), "test").grouped_by == "track"


def test_commands_say_that_they_count_tracks(track_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from darkroom.experiments.cli.main import main

    tested = read_outcome(recorded(track_store, "seed0"), "test")
    assert tested.groups is not None
    counted = f"count {len(set(tested.groups))} groups (track), not {len(tested.ids)} images"
    for command in (["slices", "seed0"], ["compare", "seed0", "seed1"]):
        capsys.readouterr()
        assert main(command) == 0
        assert counted in " ".join(capsys.readouterr().out.split())
    report = judge(
        read_members([recorded(track_store, name) for name in ("seed0", "seed1")]),
        {split: read_outcome(recorded(track_store, "soft_voting of 2"), split) for split in ("val", "test")},
        None,
        "soft_voting",
        "accuracy",
    )
    assert any(counted in line for line in report.told())


def test_a_record_without_the_groups_of_its_data_says_so(
    track_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    from darkroom.experiments.cli.main import main

    run = recorded(track_store, "seed1")
    with run.artifacts() as folder:
        (folder / "predictions").mkdir()
        run.stored_predictions("test").drop(columns="group").to_parquet(folder / "predictions/test.parquet")
    assert main(["slices", run.run_id, "--by", "class"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "the data is in groups (track) that stand in no record of these predictions" in told
