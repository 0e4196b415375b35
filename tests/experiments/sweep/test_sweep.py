"""A sweep accounts for every trial, tests only its winner, and goes on where it stopped."""

from __future__ import annotations

import signal
import time

import optuna
import pytest
import yaml

from experiments.tracking import PARENT_TAG

SMALL = ["--model.backbone_options.widths=[8]", "--trainer.max_epochs=4", "--data.batch_size=128"]
SPACE = """
sweep:
  metric: val/accuracy
  space:
    model.lr: {low: 1.0e-6, high: 3.0e-2, log: true}
    model.dropout: {low: 0.0, high: 0.5}
"""


@pytest.fixture(scope="module")
def space_file(workspace) -> str:
    """A search space of its own, without the recipe's choice of widths."""
    recipe = {
        "name": "digits/searched",
        "data": "Digits",
        "model": {"class_path": "ImageClassifier", "init_args": {"lr": 0.003}},
        **yaml.safe_load(SPACE),
    }
    path = workspace.folder / "searched.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


@pytest.fixture(scope="module")
def swept(workspace, space_file) -> str:
    """What a finished sweep of ten trials printed."""
    answer = workspace.run("sweep", space_file, "--trials=10", *SMALL)
    assert answer.status == 0, answer.errors
    return answer.output


@pytest.fixture
def study(swept, inside) -> optuna.Study:
    return optuna.load_study(study_name="digits/searched", storage="sqlite:///optuna.db")


def test_every_trial_is_complete_or_pruned_and_some_were_pruned(study):
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 10
    assert set(states) == {"COMPLETE", "PRUNED"}


def test_the_recipes_own_values_are_the_first_trial(study):
    assert study.trials[0].params == {"model.lr": 0.003, "model.dropout": 0.0}


def test_each_trial_has_one_run_below_the_sweeps_with_its_status(study, store):
    parent = store.find_run("sweep digits/searched")
    children = store.child_runs(parent)
    trials = {child.tags["trial"]: child for child in children if child.tags["role"] == "trial"}
    assert parent.status == "FINISHED"
    assert sorted(trials, key=int) == [str(number) for number in range(10)]
    for trial in study.trials:
        child = trials[str(trial.number)]
        assert child.tags[PARENT_TAG] == parent.run_id
        if trial.state.name == "PRUNED":
            assert child.status == "KILLED"
            assert child.tags["pruned"] == "true"
            assert child.last_epoch() == int(child.tags["pruned_epoch"]) < 4
        else:
            assert child.status == "FINISHED"
            assert "pruned" not in child.tags
            assert child.metrics["best/accuracy"] == trial.value


def test_only_the_winner_sees_the_test_set(study, store):
    parent = store.find_run("sweep digits/searched")
    tested = [run for run in store.child_runs(parent) if "test/accuracy" in run.metrics]
    assert [run.tags["role"] for run in tested] == ["winner"]
    assert tested[0].tags["trial"] == str(study.best_trial.number) == parent.tags["best_trial"]
    assert parent.metrics["test/accuracy"] == tested[0].metrics["test/accuracy"]
    assert parent.metrics["best/val/accuracy"] == study.best_value


def test_it_ends_with_leaderboard_test_metrics_run_id_and_the_way_to_the_ui(swept, store, study):
    ending = swept[swept.index("digits/searched") :]
    assert f"{study.best_value:.4f}" in ending
    assert "10 trials" in ending
    winner = store.find_run(store.find_run("sweep digits/searched").tags["winner_run"])
    assert winner.run_id in ending
    assert f"{winner.metrics['test/accuracy']:.4f}" in ending
    assert ending.rstrip().endswith("darkroom ui")


def test_the_same_command_again_says_that_nothing_is_left(swept, workspace, space_file, store, study):
    answer = workspace.run("sweep", space_file, "--trials=10", *SMALL)
    assert answer.status == 0, answer.errors
    assert "nothing is left to do" in answer.output
    assert len(store.child_runs(store.find_run("sweep digits/searched"))) == 11


def test_another_recipe_under_the_same_name_is_refused_with_the_difference(swept, darkroom, space_file):
    answer = darkroom("sweep", space_file, *SMALL, "--model.optimizer=sgd")
    assert answer.status == 2
    assert "model.optimizer was 'adamw' and is 'sgd'" in answer.errors
    assert "--study" in answer.errors


def test_a_killed_sweep_ends_with_every_trial_once(workspace, space_file, store):
    command = ["sweep", space_file, "--trials=5", "--study=killed", *SMALL]
    for _ in range(2):
        process = workspace.start(*command)
        wait_for_trial_in_progress(workspace, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    answer = workspace.run(*command)
    assert answer.status == 0, answer.errors
    study = optuna.load_study(study_name="killed", storage=f"sqlite:///{workspace.folder / 'optuna.db'}")
    assert [trial.number for trial in study.trials] == list(range(5))
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    children = store.child_runs(store.find_run("sweep killed"))
    assert sorted(run.tags["trial"] for run in children if run.tags["role"] == "trial") == list("01234")
    for run in children:
        assert run.status in ("FINISHED", "KILLED")
        epochs = [point.step for point in store.client.get_metric_history(run.run_id, "train/loss")]
        assert epochs == list(range(1, len(epochs) + 1))


def wait_for_trial_in_progress(workspace, process) -> None:
    seen = set(workspace.folder.glob("mlruns/checkpoints/*/last.ckpt"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if set(workspace.folder.glob("mlruns/checkpoints/*/last.ckpt")) - seen:
            return
        time.sleep(0.02)
    raise AssertionError("no trial began in 120 s")


def test_a_trial_that_fails_is_recorded_and_the_first_three_failing_stop_the_sweep(
    workspace, store, space_file
):
    broken = workspace.folder / "broken.yaml"
    broken.write_text("sweep: {space: {model.lr: {low: 1.0e+29, high: 1.0e+30}}}\nname: digits/broken")
    answer = workspace.run(
        "sweep", space_file, str(broken), *SMALL, "--model.optimizer=sgd",
        "--model.backbone_options.normalization=none", "--trials=9",
    )  # fmt: skip
    assert answer.status == 1
    assert "first 3 trials failed" in answer.errors
    assert "model.lr" in answer.errors
    children = store.child_runs(store.find_run("sweep digits/broken"))
    assert [run.status for run in children] == ["FAILED"] * 3
    assert all("NonFiniteLossError" in run.read_text("traceback.txt") for run in children)
