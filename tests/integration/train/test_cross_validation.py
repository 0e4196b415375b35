"""Each fold is trained once, whatever is killed meanwhile, and the run above them tells their mean."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support.training import run_id, wait_for_epoch

from darkroom.experiments.errors import RequestError
from darkroom.experiments.evaluation.fold_summary import summarize
from darkroom.experiments.tracking.prediction_artifacts import read_outcome
from darkroom.experiments.tracking.run import RunRecord
from darkroom.experiments.tracking.store import Store
from darkroom.experiments.workflows.child_runs import exclusive
from darkroom.experiments.workflows.cross_validation import Fold

EPOCHS = 12
FOLDED = [
    "train",
    "digits/cnn",
    "--folds=2",
    "--model.backbone_options.widths=[8]",
    f"--trainer.max_epochs={EPOCHS}",
    "--mlflow.system_metrics=false",
]


@dataclass(frozen=True)
class Interrupted:
    """A cross-validation whose process was killed in its second fold, and that was told to go on."""

    first: str  # the runs of its folds, when it was killed
    second: str
    output: str  # of what went on


@pytest.fixture(scope="module")
def interrupted(workspace) -> Interrupted:
    process = workspace.start(*FOLDED)
    first = wait_for_epoch(workspace.folder, 1, process)
    while (workspace.folder / "mlruns" / "checkpoints" / first).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    second = wait_for_epoch(workspace.folder, 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    answer = workspace.run(*FOLDED)
    assert answer.status == 0, answer.errors
    return Interrupted(first, second, answer.output)


@pytest.fixture
def parent(interrupted, store: Store) -> RunRecord:
    return store.find_run(run_id(interrupted.output))


def test_a_killed_one_goes_on_where_it_was_and_repeats_no_finished_fold(interrupted, parent, store):
    assert f"going on with run {parent.run_id[:8]}: 1 of 2 folds are done" in interrupted.output
    assert f"fold 1 of 0 to 1: going on with run {interrupted.second[:8]}" in interrupted.output
    assert f"epoch 1/{EPOCHS}" not in interrupted.output
    folds = {run.tags["fold"]: run for run in store.child_runs(parent)}
    assert {fold: run.run_id for fold, run in folds.items()} == {
        "0": interrupted.first,
        "1": interrupted.second,
    }
    for run in (parent, *folds.values()):
        assert run.status == "FINISHED"
    for run in folds.values():
        history = store.client.get_metric_history(run.run_id, "train/loss")
        assert [point.step for point in history] == list(range(1, EPOCHS + 1))
        assert "test/accuracy" in run.metrics


def test_each_training_image_is_predicted_by_the_network_that_did_not_train_on_it(parent, store):
    folds = store.child_runs(parent)
    split = pd.read_parquet(folds[0].download("data/split.parquet"))
    outcome = read_outcome(parent, "val")
    assert outcome.ids.tolist() == sorted(split["id"][split["split"] != "test"])
    for fold in folds:
        said = read_outcome(fold, "val")
        places = np.searchsorted(outcome.ids, said.ids)
        assert np.array_equal(outcome.targets[places], said.targets)
        assert np.array_equal(outcome.probabilities[places], said.probabilities)
        trained = pd.read_parquet(fold.download("data/split.parquet"))
        assert not set(said.ids) & set(trained["id"][trained["split"] == "train"])


def test_the_parent_tells_the_mean_and_its_interval_and_the_screen_does_too(interrupted, parent, store):
    folds = store.child_runs(parent)
    for metric in ("best/accuracy", "test/accuracy"):
        values = [fold.metrics[metric] for fold in folds]
        assert parent.metrics[f"mean/{metric}"] == pytest.approx(sum(values) / 2)
        assert parent.metrics[f"std/{metric}"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
        assert parent.metrics[f"low/{metric}"] < min(values) <= max(values) < parent.metrics[f"high/{metric}"]
        half = parent.metrics[f"high/{metric}"] - parent.metrics[f"mean/{metric}"]
        assert f"{parent.metrics[f'mean/{metric}']:.4f} ± {half:.4f}" in interrupted.output
    table = pd.read_csv(parent.download("tables/folds.csv"))
    assert table["run"].tolist() == [interrupted.first, interrupted.second]


def test_its_folds_are_compared_as_one_group(parent, darkroom):
    answer = darkroom("compare", parent.run_id)
    assert answer.status == 0, answer.errors
    assert "folds" in answer.output
    assert f"{parent.metrics['mean/test/accuracy']:.4f}" in answer.output
    whole = darkroom("compare", "digits/cnn")  # the recipe's runs, of which the parent is none
    assert "have no test/accuracy" not in whole.output


def test_what_tells_of_others_is_neither_rerun_nor_resumed_itself(parent, darkroom, store):
    answer = darkroom("rerun", parent.run_id)
    assert answer.status == 2
    assert "tells of the 2 runs below it" in answer.errors
    store.continue_run(parent)
    answer = darkroom("train", "--resume", parent.run_id)
    parent.end("FINISHED")
    assert answer.status == 2
    assert "the command that it was begun with" in answer.errors


def test_a_fold_alone_is_the_fold_of_all_of_them(interrupted, darkroom, store):
    alone_keys = ["--data.folds=2", "--data.fold=1", *(key for key in FOLDED[2:] if key != "--folds=2")]
    answer = darkroom("train", "digits/cnn", *alone_keys)
    assert answer.status == 0, answer.errors
    assert "fold 1 of folds 0 to 1" in answer.output
    ours, theirs = store.find_run(run_id(answer.output)), store.find_run(interrupted.second)
    assert ours.predictions("val").equals(theirs.predictions("val"))
    assert ours.predictions("test").equals(theirs.predictions("test"))


def test_the_interval_is_nadeau_and_bengios_with_the_folds_own_sizes():
    values, sizes = (0.90, 0.92, 0.91, 0.93, 0.89), ((30, 70), (10, 90), (20, 80), (20, 80), (20, 80))
    folds = [
        Fold(number, SimpleNamespace(metrics={"best/accuracy": value, "best/epoch": 3.0}), *size)
        for number, (value, size) in enumerate(zip(values, sizes, strict=True))
    ]
    summaries = summarize(folds)
    assert summaries.keys() == {"best/accuracy"}
    found = summaries["best/accuracy"]
    assert found.mean == pytest.approx(0.91)
    assert found.deviation == pytest.approx(math.sqrt(0.00025))
    # (3/7 + 1/9 + 3/4) / 5 = 0.257937; t with 4 degrees of freedom is 2.776445 at 0.975.
    half = 2.776445 * math.sqrt((1 / 5 + 0.257937) * 0.00025)
    assert found.interval.high == pytest.approx(0.91 + half, abs=1e-6)
    assert found.interval.low == pytest.approx(0.91 - half, abs=1e-6)


def test_two_processes_do_not_train_the_same_folds(store):
    run = store.start_run("digits/alone", "folds", {})
    with (
        exclusive(run, "work"),
        pytest.raises(RequestError, match="another process"),
        exclusive(run, "work"),
    ):
        pass
    with exclusive(run, "work"):  # free again
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folds=1"], "data.folds must be at least 2, got 1"),
        (["--folds=500"], "500 folds are too many for the class 0"),
        (["--folds=5", "--data.fold=2"], "data.fold can't be given with --folds"),
        (["--folds=5", "--data.folds=3"], "data.folds can't be given with --folds"),
        (["--folds=5", "--data.val_fraction=0.2"], "data.val_fraction can't be given with --folds"),
        (["--folds=5", "--mlflow.enabled=false"], "mlflow.enabled must be true"),
        (["--data.folds=5", "--data.fold=5"], "data.fold must lie in [0, 4], got 5"),
    ],
)
def test_a_mistake_is_one_paragraph_and_starts_nothing(arguments, said, darkroom, store):
    before = len(store.runs_of("digits/cnn"))
    answer = darkroom("train", "digits/cnn", *arguments)
    assert answer.status == 2
    assert said in answer.errors
    assert len(answer.errors.strip().splitlines()) == 1
    assert len(store.runs_of("digits/cnn")) == before
