"""A trial of folds is each fold's training, once, and the mean of them is what the search goes by."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
import torch
from optuna.trial import TrialState
from support.sweep_processes import trial_processes, wait_for
from support.training import run_id

from darkroom.datamodules import Digits
from darkroom.experiments.config.search_space.settings import SweepSettings
from darkroom.experiments.sweep.study.samplers_and_pruners import build_pruner
from darkroom.experiments.sweep.study.study import SearchPlan
from darkroom.experiments.tracking.run import RunRecord
from darkroom.experiments.tracking.store import Store

pytestmark = pytest.mark.slow_first

FOLDS = 3


@dataclass(frozen=True)
class Searched:
    """A finished sweep over folds."""

    recipe: str
    keys: list[str]
    output: str


@pytest.fixture(scope="module")
def searched(workspace, write_recipe, small) -> Searched:
    recipe = write_recipe(workspace.folder, "folded", trials=6, confirm={"top": 1, "seeds": 2})
    keys = [*small, f"--sweep.folds={FOLDS}", "--trainer.max_epochs=2"]
    answer = workspace.run("sweep", recipe, "--workers=2", *keys)
    assert answer.status == 0, answer.errors
    return Searched(recipe, keys, answer.output)


@pytest.fixture
def study(searched, inside) -> optuna.Study:
    return optuna.load_study(study_name="digits/folded", storage="sqlite:///optuna.db")


@pytest.fixture
def runs(searched, store: Store) -> dict[str, list[RunRecord]]:
    """What stands below the sweep's run, by role, in the order of the trials."""
    found: dict[str, list[RunRecord]] = {}
    for run in store.child_runs(store.find_run("sweep digits/folded")):
        found.setdefault(run.tags["role"], []).append(run)
    return {role: sorted(members, key=lambda run: int(run.tags["trial"])) for role, members in found.items()}


def fold_ids() -> list[set[str]]:
    """The images of each fold, as the data divides them by itself."""
    folds = [Digits(folds=FOLDS, fold=fold) for fold in range(FOLDS)]
    for data in folds:
        data.setup()
    return [set(data.splits["val"].ids) for data in folds]


def test_a_trials_value_is_the_mean_over_folds_and_its_predictions_say_so_too(study, runs):
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    assert len(complete) >= 3
    for trial in complete:
        run = runs["trial"][trial.number]
        said = run.predictions("val")
        right = said.filter(like="prob_").to_numpy().argmax(1) == said["target"]
        accuracies = [right[said["id"].isin(ids)].mean() for ids in fold_ids()]
        recorded = [run.metrics[f"fold_{fold}/best/accuracy"] for fold in range(FOLDS)]
        assert recorded == pytest.approx(accuracies)
        assert trial.value == pytest.approx(statistics.fmean(accuracies))
        assert run.metrics["mean/best/accuracy"] == pytest.approx(trial.value)
        assert run.metrics["std/best/accuracy"] == pytest.approx(statistics.stdev(accuracies), rel=1e-4)
        assert run.metrics["low/best/accuracy"] < trial.value < run.metrics["high/best/accuracy"]
        assert run.status == "FINISHED"
        assert run.metrics["fold_0/cost/images_per_second"] > 0


def test_each_training_image_is_predicted_once_by_each_trial(study, runs):
    everyone = sorted(set().union(*fold_ids()))
    for trial in study.trials:
        if trial.state is TrialState.COMPLETE:
            assert runs["trial"][trial.number].predictions("val")["id"].tolist() == everyone


def test_a_pruned_trial_keeps_the_folds_it_has(study, runs):
    pruned = [trial for trial in study.trials if trial.state is TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        run, folds = runs["trial"][trial.number], len(trial.intermediate_values)
        assert 0 < folds < FOLDS
        assert run.status == "KILLED"
        assert run.tags["pruned_folds"] == str(folds)
        assert f"fold_{folds - 1}/best/accuracy" in run.metrics
        assert f"fold_{folds}/train/loss" not in run.metrics
        assert len(run.predictions("val")) == sum(len(ids) for ids in fold_ids()[:folds])
        assert trial.user_attrs["epochs"] == 2 * folds
        assert run.metrics["mean/best/accuracy"] == pytest.approx(trial.intermediate_values[folds])


def test_a_fold_is_what_train_makes_of_it_alone(searched, runs, darkroom, store):
    run = runs["trial"][0]
    keys = [key for key in searched.keys if "sweep" not in key]
    alone = ["--data.folds=3", "--data.fold=1", f"--seed={run.tags['seed']}"]
    answer = darkroom("train", searched.recipe, *keys, *alone)
    assert answer.status == 0, answer.errors
    fold = store.find_run(run_id(answer.output))
    assert fold.metrics["best/log_loss"] == run.metrics["fold_1/best/log_loss"]
    said, again = run.predictions("val"), fold.predictions("val").sort_values("id", ignore_index=True)
    assert said[said["id"].isin(again["id"])].reset_index(drop=True).equals(again)


def test_fresh_seeds_are_judged_over_the_same_folds_and_the_winner_on_its_own_split(searched, runs):
    assert "fresh seeds, each over the same 3 folds" in " ".join(searched.output.split())
    assert len(runs["confirmation"]) == 2
    for run in runs["confirmation"]:
        values = [run.metrics[f"fold_{fold}/best/accuracy"] for fold in range(FOLDS)]
        assert run.metrics["mean/best/accuracy"] == pytest.approx(statistics.fmean(values))
    (winner,) = runs["winner"]
    assert winner.params["data.folds"] == "None"
    assert "test/accuracy" in winner.metrics
    assert not any(
        "test/" in name for role in ("trial", "confirmation") for run in runs[role] for name in run.metrics
    )


def test_the_sweeps_tables_have_each_fold_and_its_savings_count_them(searched, study, store):
    table = pd.read_csv(store.find_run("sweep digits/folded").download("tables/trials.csv"))
    for row, trial in zip(table.itertuples(), study.trials, strict=True):
        folds = [value for value in (row.fold_0, row.fold_1, row.fold_2) if not pd.isna(value)]
        assert statistics.fmean(folds) == pytest.approx(trial.value or trial.intermediate_values[len(folds)])
    trained = sum(trial.user_attrs["epochs"] for trial in study.trials)
    assert f"pruning saved {6 * FOLDS * 2 - trained} of {6 * FOLDS * 2} epochs" in searched.output


def test_the_same_folds_have_nothing_left_to_do_and_others_are_another_study(searched, darkroom):
    answer = darkroom("sweep", searched.recipe, *searched.keys)
    assert answer.status == 0, answer.errors
    assert "nothing is left to do" in answer.output
    for folds, known in (("4", "3"), ("null", "3")):
        answer = darkroom("sweep", searched.recipe, *searched.keys, f"--sweep.folds={folds}", "--extend")
        assert answer.status == 2
        assert f"sweep.folds was {known} and is {folds.replace('null', 'None')}" in answer.errors


def test_a_trial_of_folds_is_not_rerun_as_if_it_were_one_training(runs, darkroom):
    answer = darkroom("rerun", runs["trial"][0].run_id)
    assert answer.status == 2
    assert "trained 3 folds as a trial of a sweep" in answer.errors


@pytest.mark.slow  # test_kills kills trials at every run
def test_a_killed_trial_goes_on_in_its_fold_and_epoch_and_repeats_none(
    fresh_workspace, write_recipe, small, open_store_at
):
    epochs = 6
    recipe = write_recipe(fresh_workspace.folder, "killed", trials=1, folds=2, pruner="none")
    command = ["sweep", recipe, *small, f"--trainer.max_epochs={epochs}", "--data.batch_size=16"]

    def checkpoint(fold):
        """The epochs of which the last checkpoint of a fold knows; none where there is no checkpoint."""
        for path in fresh_workspace.folder.glob(f"mlruns/checkpoints/*/fold_{fold}/last.ckpt"):
            with contextlib.suppress(FileNotFoundError):
                return 1 + torch.load(path, weights_only=True)["epoch"]
        return None

    process = fresh_workspace.start(*command)
    wait_for(lambda: checkpoint(0), process)
    (victim,) = trial_processes(process)
    victim.kill()
    wait_for(lambda: checkpoint(1), process)
    orphans = trial_processes(process)
    process.kill()
    output, _ = process.communicate()
    psutil.wait_procs(orphans, timeout=10)
    assert "SIGKILL); it goes on from its last checkpoint" in output
    reached = checkpoint(1)
    assert reached < epochs, "the second fold was over before it was killed: make it last longer"
    store = open_store_at(fresh_workspace)
    (interrupted,) = store.child_runs(store.find_run("sweep digits/killed"))

    process, seen = fresh_workspace.start(*command), set()
    while process.poll() is None:
        assert checkpoint(0) is None, "the first fold was trained again"
        seen.add(checkpoint(1))
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert min(seen - {None}) >= reached
    (run,) = [
        each for each in store.child_runs(store.find_run("sweep digits/killed")) if "folds" in each.tags
    ]
    assert run.run_id == interrupted.run_id
    for fold in range(2):
        history = store.client.get_metric_history(run.run_id, f"fold_{fold}/val/accuracy")
        assert [point.step for point in history] == list(range(1, epochs + 1))
        assert len(store.client.get_metric_history(run.run_id, f"fold_{fold}/best/accuracy")) == 1
    values = [run.metrics[f"fold_{fold}/best/accuracy"] for fold in range(2)]
    assert run.metrics["mean/best/accuracy"] == pytest.approx(statistics.fmean(values))
    assert len(run.predictions("val")["id"].unique()) == len(run.predictions("val")) == 1425


@pytest.mark.parametrize(("pruner", "stopped_after"), [("wilcoxon", 4), ("median", 1)])
def test_pruners_judge_after_each_fold_by_what_they_compare(pruner, stopped_after):
    """The fourth trial is worse than the best in every fold, of which the test is sure after four."""
    settings = SweepSettings(pruner=pruner, folds=5, metric="val/loss")
    study = optuna.create_study(pruner=build_pruner(settings, settings.steps(30)))
    plan = SearchPlan(study, settings, seed=0, total=4)
    hardness = np.array([0.5, 0.1, 0.9, 0.3, 0.7])  # of the folds
    swings = np.array([0.1, -0.1, 0.1, -0.1, 0.1])
    for losses in (hardness, hardness + swings, hardness - swings):
        trial = study.ask()
        assert not any(plan.report(trial, fold, loss) for fold, loss in enumerate(losses, 1))
        study.tell(trial, losses.mean())
    trial = study.ask()
    verdicts = [plan.report(trial, fold, loss + 0.2 + fold / 100) for fold, loss in enumerate(hardness, 1)]
    assert verdicts.index(True) + 1 == stopped_after


def test_what_is_reported_is_the_fold_to_wilcoxon_and_the_mean_so_far_to_others():
    for pruner, reported in (("wilcoxon", [0.4, 0.8]), ("median", [0.4, 0.6])):
        settings = SweepSettings(pruner=pruner, folds=5)
        study = optuna.create_study(direction="maximize", pruner=build_pruner(settings, 5))
        plan, trial = SearchPlan(study, settings, seed=0, total=1), study.ask()
        for fold, value in ((1, 0.4), (2, 0.8), (2, 0.8)):  # whoever was killed reports its last fold again
            plan.report(trial, fold, value)
        assert list(study.trials[0].intermediate_values.values()) == pytest.approx(reported)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["--sweep.folds=1"], "sweep.folds must be at least 2, got 1"),
        (["--sweep.folds=500"], "500 folds are too many for the class 0"),
        (["--sweep.folds=3", "--data.folds=3"], "data.folds can't be given with sweep.folds=3"),
        (["--sweep.folds=3", "--data.fold=0"], "data.fold can't be given with sweep.folds=3"),
        (["--sweep.folds=3", "--data.val_fraction=0"], "the winner would have none: data.val_fraction"),
        (["--sweep.folds=3", "--sweep.pruner=wilcoxon"], "wilcoxon could stop no trial of sweep.folds=3"),
        (["--sweep.pruner=wilcoxon"], "wilcoxon compares trials fold by fold"),
    ],
)
def test_a_mistake_is_one_paragraph_and_starts_nothing(keys, said, darkroom, space_file, store):
    before = len(store.runs_of("digits/searched"))
    answer = darkroom("sweep", space_file, *keys)
    assert answer.status == 2
    assert said in answer.errors
    assert len(answer.errors.strip().splitlines()) == 1
    assert len(store.runs_of("digits/searched")) == before


@pytest.mark.slow
def test_without_validation_images_the_winner_trains_on_all_like_the_folds_to_the_last_epoch(
    fresh_workspace, write_recipe, small, open_store_at
):
    recipe = write_recipe(fresh_workspace.folder, "whole", trials=1, folds=2)
    to_the_end = ["--trainer.monitor=null", "--trainer.early_stopping=null", "--trainer.max_epochs=1"]
    answer = fresh_workspace.run("sweep", recipe, *small, *to_the_end, "--data.val_fraction=0")
    assert answer.status == 0, answer.errors
    assert "flatters" not in answer.output
    store = open_store_at(fresh_workspace)
    winner = store.find_run(store.find_run("sweep digits/whole").tags["winner_run"])
    split = pd.read_parquet(winner.download("data/split.parquet"))
    assert set(split["split"]) == {"train", "test"}
    trial = next(run for run in store.child_runs(store.find_run("sweep digits/whole")) if "folds" in run.tags)
    assert sorted(split["id"][split["split"] == "train"]) == trial.predictions("val")["id"].tolist()
