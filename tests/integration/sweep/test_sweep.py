"""A sweep accounts for every trial, tests only its winner, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
from multiprocessing import Pipe

import optuna
import pandas as pd
import pytest
from support.html import shown_in_a_browser

from darkroom.datamodules.seeding import derive_seed
from darkroom.experiments.config.experiment import parse_experiment
from darkroom.experiments.config.search_space.settings import Confirm, SweepSettings
from darkroom.experiments.errors import RequestError
from darkroom.experiments.sweep.execution.messages import Channel, EpochReport, TrialRequest
from darkroom.experiments.sweep.execution.trial import run_trial
from darkroom.experiments.sweep.execution.trial_records import Sweep
from darkroom.experiments.sweep.run import parent_run, record_confirmation
from darkroom.experiments.sweep.study.confirmation import Confirmed
from darkroom.experiments.tracking.run import PARENT_TAG
from darkroom.experiments.tracking.store import open_store

pytestmark = pytest.mark.slow_first


@pytest.fixture(scope="module")
def swept(workspace, space_file, small) -> str:
    """What a finished sweep of ten trials printed."""
    answer = workspace.run("sweep", space_file, "--trials=10", *small)
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
    assert all(trial.metrics["cost/images_per_second"] > 0 for trial in trials.values())
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
    assert "pruning saved" in ending
    winner = store.find_run(store.find_run("sweep digits/searched").tags["winner_run"])
    assert winner.run_id in ending
    assert f"{winner.metrics['test/accuracy']:.4f}" in ending
    assert ending.rstrip().endswith("darkroom ui")


def test_the_same_command_again_says_that_nothing_is_left(swept, workspace, space_file, store, study, small):
    answer = workspace.run("sweep", space_file, "--trials=10", *small)
    assert answer.status == 0, answer.errors
    assert "nothing is left to do" in answer.output
    assert len(store.child_runs(store.find_run("sweep digits/searched"))) == 11


def test_another_recipe_under_the_same_name_is_refused_with_the_difference(
    swept, darkroom, space_file, small
):
    answer = darkroom("sweep", space_file, *small, "--model.optimizer=sgd")
    assert answer.status == 2
    assert "model.optimizer was 'adamw' and is 'sgd'" in answer.errors
    assert "--study" in answer.errors


def test_trial_seeds_follow_from_the_sweeps_seed_and_the_number(study, store):
    for run in store.child_runs(store.find_run("sweep digits/searched")):
        if run.tags["role"] == "trial":
            assert int(run.tags["seed"]) == derive_seed(0, int(run.tags["trial"])) % 2**31


def test_a_trial_is_named_by_what_was_varied_alone(study, store):
    names = {run.name for run in store.child_runs(store.find_run("sweep digits/searched"))}
    assert "lr=0.003 dropout=0" in names
    assert "winner lr=0.003 dropout=0" in names or study.best_trial.number > 0


def test_its_page_shows_no_error_in_a_browser(study, store, tmp_path):
    page = store.find_run("sweep digits/searched").download("sweep.html")
    assert "svg" in shown_in_a_browser(page, tmp_path / "profile")


def test_the_sweeps_run_shows_figures_tables_and_the_budget_spent(study, store):
    parent = store.find_run("sweep digits/searched")
    for name in ("history", "intermediate_values", "slices", "timeline"):
        assert parent.download(f"figures/{name}.png").stat().st_size > 5_000
    assert parent.download("sweep.html").stat().st_size > 1_000_000
    table = pd.read_csv(parent.download("tables/trials.csv"))
    assert sorted(table["trial"]) == list(range(10))
    assert int(parent.tags["trials"]) == 10
    assert int(parent.tags["epochs"]) == sum(trial.user_attrs["epochs"] for trial in study.trials)


def test_the_winner_is_a_recipe_that_trains_to_the_very_same_weights(swept, workspace, store, study):
    path = workspace.folder / "digits-searched-best.yaml"
    answer = workspace.run("train", str(path), "--mlflow.run_name=from the file")
    assert answer.status == 0, answer.errors
    winner = store.find_run(store.find_run("sweep digits/searched").tags["winner_run"])
    again = store.find_run("from the file")
    assert again.metrics["test/log_loss"] == winner.metrics["test/log_loss"]


def test_a_moved_range_is_refused_until_it_is_asked_for(swept, workspace, write_recipe, small):
    folder = workspace.folder / "moved"
    folder.mkdir()
    moved = {"model.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "model.dropout": {"low": 0.0, "high": 0.5}}
    recipe = write_recipe(folder, space=moved)
    answer = workspace.run("sweep", recipe, "--trials=11", *small)
    assert answer.status == 2
    assert "sweep.space.model.lr.low was 1e-06 and is 0.0001" in answer.errors
    assert "--extend" in answer.errors
    answer = workspace.run("sweep", recipe, "--trials=11", "--extend", *small)
    assert answer.status == 0, answer.errors
    assert "10 of 11 trials are done" in answer.output


def test_more_workers_than_cores_are_refused(darkroom, space_file):
    cores = len(os.sched_getaffinity(0))
    answer = darkroom("sweep", space_file, f"--workers={cores + 1}")
    assert answer.status == 2
    assert f"at most {cores}" in answer.errors


def test_the_best_are_confirmed_on_fresh_seeds_and_only_the_winner_is_tested(
    workspace, write_recipe, small, store
):
    recipe = write_recipe(
        workspace.folder, "confirmed", trials=4, pruner="none", confirm={"top": 2, "seeds": 2}
    )
    answer = workspace.run("sweep", recipe, "--workers=2", *small)
    assert answer.status == 0, answer.errors
    assert "confirmed on 2 fresh seeds" in answer.output
    words = " ".join(answer.output.split())
    assert re.search(
        r"trial \d (is better than|has the best mean, but is not told apart from) \d \(p ", words
    )
    assert "by its mean on fresh seeds" in answer.output
    parent = store.find_run("sweep digits/confirmed")
    children = store.child_runs(parent)
    roles = [run.tags["role"] for run in children]
    assert sorted(roles) == ["confirmation"] * 4 + ["trial"] * 4 + ["winner"]
    assert [run.tags["role"] for run in children if "test/accuracy" in run.metrics] == ["winner"]
    seeds = {role: {run.tags["seed"] for run in children if run.tags["role"] == role} for role in roles}
    assert len(seeds["confirmation"]) == 2
    assert not seeds["confirmation"] & seeds["trial"]
    table = pd.read_csv(parent.download("tables/confirmation.csv"))
    for row in table.itertuples():
        assert row.mean == pytest.approx(sum(json.loads(row.values)) / 2)
    best = table.sort_values("mean", ascending=False).iloc[0]
    assert parent.tags["winner_trial"] == parent.tags["confirmed_trial"] == str(best["trial"])
    assert parent.metrics["confirmed/val/accuracy"] == best["mean"]
    top = table.sort_values("search", ascending=False).iloc[0]
    assert parent.metrics["confirmed/optimism"] == pytest.approx(top["search"] - top["mean"])


def test_a_confirmation_is_recorded_again_where_other_trials_are_confirmed(inside, study):
    store = open_store()
    parent = store.start_run("digits/searched", "confirmed twice", {})
    settings = SweepSettings(confirm=Confirm())
    facts = {"name": "x", "sources": [], "overrides": {}, "settings": settings, "seed": 0, "max_epochs": 4}
    first, second = study.trials[:2]
    for trials in ([first], [first], [second, first]):
        sweep = Sweep(**facts, store=store, parent=store.run(parent.run_id))
        record_confirmation(sweep, [Confirmed.of(trial, [0.5, trial.number]) for trial in trials], None)
    parent = store.run(parent.run_id)
    table = pd.read_csv(parent.download("tables/confirmation.csv"))
    assert list(table["trial"]) == [1, 0]
    assert parent.tags["confirmed_trial"] == "1"
    assert parent.metrics["confirmed/val/accuracy"] == 0.75
    values = store.client.get_metric_history(parent.run_id, "confirmed/val/accuracy")
    assert [value.value for value in values] == [0.25, 0.75]
    parent.end("FINISHED")


def test_a_study_whose_run_the_store_has_lost_is_refused(inside):
    store = open_store()
    study = optuna.create_study(study_name="orphan")
    study.set_user_attr("mlflow_run", "0" * 32)
    experiment = parse_experiment(["name: x/y\ndata: Digits\nmodel: ImageClassifier"], {})
    with pytest.raises(
        RequestError, match=r"the study orphan's run 0{32} is not in the store .*--study NAME"
    ):
        parent_run(experiment, study, store)


@pytest.mark.slow
def test_a_grid_is_searched_to_its_end_and_no_further(workspace, write_recipe, small, store):
    space = {"model.dropout": {"choices": [0.0, 0.2]}, "model.optimizer": {"choices": ["adamw", "sgd"]}}
    recipe = write_recipe(workspace.folder, "grid", space=space, sampler="grid", pruner="none")
    answer = workspace.run("sweep", recipe, "--trials=9", "--workers=2", *small, "--trainer.max_epochs=1")
    assert answer.status == 0, answer.errors
    study = optuna.load_study(study_name="digits/grid", storage=f"sqlite:///{workspace.folder / 'optuna.db'}")
    points = {tuple(trial.params.values()) for trial in study.trials}
    assert len(study.trials) == len(points) == 4
    assert answer.output.count("\ntrial ") + answer.output.startswith("trial ") == 4


def test_several_objectives_give_a_front_and_still_prune_on_the_metric(workspace, write_recipe, small, store):
    space = {
        "model.lr": {"low": 1e-6, "high": 3e-2, "log": True},
        "network": {
            "choices": {
                "small": {"model.backbone_options.widths": [4]},
                "large": {"model.backbone_options.widths": [8, 16]},
            }
        },
    }
    recipe = write_recipe(
        workspace.folder, "front", space=space, objectives=["num_parameters"], sampler="nsga2", trials=10
    )
    answer = workspace.run("sweep", recipe, "--workers=2", "--trainer.max_epochs=4", "--data.batch_size=128")
    assert answer.status == 0, answer.errors
    study = optuna.load_study(
        study_name="digits/front", storage=f"sqlite:///{workspace.folder / 'optuna.db'}"
    )
    states = {trial.state.name for trial in study.trials}
    assert states == {"COMPLETE", "PRUNED"}
    sizes = {trial.params["network"]: trial.values[1] for trial in study.trials if trial.values}
    assert len(set(sizes.values())) == len(sizes)
    parent = store.find_run("sweep digits/front")
    assert parent.download("figures/pareto_front.png").stat().st_size > 5_000


def test_a_trial_that_fails_is_recorded_and_the_first_three_failing_stop_the_sweep(
    workspace, store, space_file, small
):
    broken = workspace.folder / "broken.yaml"
    broken.write_text("sweep: {space: {model.lr: {low: 1.0e+29, high: 1.0e+30}}}\nname: digits/broken")
    answer = workspace.run(
        "sweep", space_file, str(broken), *small, "--model.optimizer=sgd",
        "--model.backbone_options.normalization=none", "--trials=9",
    )  # fmt: skip
    assert answer.status == 1
    assert "the first 3 trials failed alike" in answer.errors
    assert "model.lr" in answer.errors
    children = store.child_runs(store.find_run("sweep digits/broken"))
    assert [run.status for run in children] == ["FAILED"] * 3
    assert all("NonFiniteLossError" in run.read_text("traceback.txt") for run in children)


@pytest.mark.parametrize(("every", "measured"), [(2, [2]), (5, [])])
def test_a_trial_whose_last_epoch_is_chosen_but_was_not_validated_is_judged_by_it(every, measured, small):
    recipe = {key.removeprefix("--"): value for key, value in (each.split("=") for each in small)}
    recipe |= {"trainer.max_epochs": "3", "trainer.monitor": "null", "trainer.progress": "false"}
    outcomes, reports = {}, {}
    for name, extra in (("each", "null"), ("some", f"{{check_val_every_n_epoch: {every}}}")):
        ours, theirs = Pipe()
        for _ in range(3):
            ours.send("go on")  # answers to the reports that come
        task = TrialRequest(
            ["digits/cnn"], {**recipe, "trainer.extra": extra}, "val/accuracy", None, [], "trial", None, 1
        )
        outcomes[name] = run_trial(task, Channel(theirs))
        reports[name] = []
        while ours.poll():
            reports[name].append(ours.recv())
    assert outcomes["some"].failure is None, outcomes["some"].traceback
    assert outcomes["some"].values == outcomes["each"].values  # of the same weights on the same images
    assert reports["some"] == [reports["each"][epoch - 1] for epoch in measured]
    assert all(isinstance(report, EpochReport) for report in reports["each"])
