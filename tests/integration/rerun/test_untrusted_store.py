"""A store from a stranger: whatever lies in it, no command that reads it executes any of it."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml

EVIL = 'from pathlib import Path\nPath("executed").touch()\n'


class Payload:
    """What a pickle does when it is loaded."""

    def __reduce__(self):
        return exec, (EVIL,)


@pytest.fixture(scope="module")
def two_runs(workspace, tmp_path_factory):
    """A folder with two finished runs, and one that was stopped."""
    workspace = type(workspace)(tmp_path_factory.mktemp("honest"))
    common = ["train", "digits/cnn", "--model.backbone_options.widths=[8]", "--trainer.max_epochs=1"]
    for seed in (0, 1):
        answer = workspace.run(*common, f"--seed={seed}", f"--mlflow.run_name=seed{seed}")
        assert answer.status == 0, answer.errors
    return workspace


@pytest.fixture
def store(two_runs, tmp_path):
    """A copy of it, to be spoilt."""
    folder = tmp_path / "project"
    shutil.copytree(two_runs.folder, folder)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        change = "SET {0} = replace({0}, ?, ?)"
        places = (str(two_runs.folder), str(folder))
        database.execute(f"UPDATE experiments {change.format('artifact_location')}", places)
        database.execute(f"UPDATE runs {change.format('artifact_uri')}", places)
        database.execute(f"UPDATE logged_models {change.format('artifact_location')}", places)
    return type(two_runs)(folder)


def artifacts(store) -> list[Path]:
    return [path.parent for path in store.folder.rglob("artifacts/config.yaml")]


def was_executed(store) -> bool:
    return bool(list(store.folder.rglob("executed")))


def test_a_pickle_executes_where_it_is_loaded(tmp_path, monkeypatch):
    """What the other tests look for does happen."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Payload()))
    assert (tmp_path / "executed").exists()


def test_an_ensemble_loads_no_logged_model(store):
    for model in store.folder.rglob("MLmodel"):
        text = yaml.safe_load(model.read_text())
        text["flavors"] = {
            "pytorch": {"model_data": "data", "pytorch_version": "2", "code": "code"},
            "python_function": {"loader_module": "evil", "code": "code", "data": "data"},
        }
        model.write_text(yaml.safe_dump(text))
        (model.parent / "code").mkdir()
        (model.parent / "code" / "evil.py").write_text(EVIL)
        (model.parent / "data").mkdir(exist_ok=True)
        (model.parent / "data" / "model.pth").write_bytes(pickle.dumps(Payload()))
        (model.parent / "data" / "pickle_module_info.txt").write_text("evil")
    answer = store.run("ensemble", "seed0", "seed1")
    assert answer.status == 0, answer.errors
    assert not was_executed(store)


@pytest.mark.parametrize(
    "command",
    [["evaluate", "seed0"], ["ensemble", "seed0", "seed1"], ["ensemble", "seed0", "seed1", "--method=soup"]],
)
def test_a_checkpoint_that_is_a_pickle_of_something_else_is_refused(store, command):
    for path in store.folder.rglob("best.ckpt"):
        path.write_bytes(pickle.dumps(Payload()))
    answer = store.run(*command)
    assert answer.status == 2
    assert "can't be read as a checkpoint" in answer.errors
    assert "Traceback" not in answer.errors
    assert not was_executed(store)


@pytest.mark.parametrize("command", [["evaluate"], ["slices"], ["rerun"]])
def test_a_class_of_a_strangers_module_is_not_imported(store, command):
    (store.folder / "evil.py").write_text(EVIL + "from datamodules import Digits\n")
    for folder in artifacts(store):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["data"]["class_path"] = "evil.Digits"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    store.run(*command, "seed0", PYTHONPATH=str(store.folder))
    assert not was_executed(store)


def test_a_class_path_within_an_argument_is_not_called(store):
    called = {"class_path": "os.mkdir", "init_args": {"path": "executed"}}
    for key in ("optimizer_options", "schedule_options", "loss_options", "backbone_options"):
        for folder in artifacts(store):
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["model"]["init_args"][key] = {"widths": [8], "called": called}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
        answer = store.run("evaluate", "seed0")
        assert "Traceback" not in answer.errors
        assert not was_executed(store)


def test_a_checkpoint_to_resume_from_that_is_a_pickle_of_something_else_is_refused(store):
    run_id = artifacts(store)[0].parent.name
    checkpoints = store.folder / "mlruns" / "checkpoints" / run_id
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").write_bytes(pickle.dumps(Payload()))
    with contextlib.closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET status = 'KILLED' WHERE run_uuid = ?", (run_id,))
    answer = store.run("train", "--resume", run_id)
    assert answer.status in (1, 2)
    assert "can't be read as a checkpoint" in answer.errors
    assert "Traceback" not in answer.errors
    assert not was_executed(store)
