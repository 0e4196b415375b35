"""A boosted sequence is SAMME's, each member is trained once whatever is killed, and all of them vote."""

from __future__ import annotations

import signal
import time

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier
from support.training import run_id, wait_for_epoch

from darkroom.experiments.tracking.prediction_artifacts import read_outcome
from darkroom.experiments.workflows.ensemble.samme import reweighted, vote_of, weighted_error
from darkroom.lightning_modules.predictor import WeightedVotes

BOOSTED = [
    "train",
    "digits/cnn",
    "--boost=3",
    "--model.backbone_options.widths=[8]",
    "--trainer.max_epochs=4",
    "--mlflow.system_metrics=false",
]


@pytest.fixture(scope="module")
def interrupted(workspace) -> tuple[str, str]:
    """A sequence that was killed in its second member and told to go on: the first one's run, the output."""
    process = workspace.start(*BOOSTED)
    first = wait_for_epoch(workspace.folder, 1, process)
    while (workspace.folder / "mlruns" / "checkpoints" / first).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    wait_for_epoch(workspace.folder, 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    answer = workspace.run(*BOOSTED)
    assert answer.status == 0, answer.errors
    return first, answer.output


@pytest.fixture
def parent(interrupted, store):
    return store.find_run(run_id(interrupted[1]))


@pytest.fixture
def members(parent, store):
    return sorted(store.child_runs(parent), key=lambda run: int(run.tags["member"]))


def test_a_killed_sequence_goes_on_where_it_was_and_trains_no_member_twice(interrupted, parent, members):
    first, output = interrupted
    assert f"going on with run {parent.run_id[:8]}: 1 of 3 members are trained" in output
    assert f"member 1: going on with run {members[1].run_id[:8]}" in output
    assert [run.tags["member"] for run in members] == ["0", "1", "2"]
    assert [run.params["seed"] for run in members] == ["0", "1", "2"]
    assert members[0].run_id == first
    assert {run.status for run in (parent, *members)} == {"FINISHED"}
    for run in members:
        assert sorted(run.history(["train/loss"])) == [1, 2, 3, 4]


def test_each_member_draws_images_by_what_those_before_it_got_wrong(members):
    ids = read_outcome(members[0], "train").ids
    weights = np.ones(len(ids))
    for run in members:
        if run is not members[0]:
            recorded = pd.read_parquet(run.download("data/sample_weights.parquet")).set_index("id")["weight"]
            np.testing.assert_allclose(recorded[ids], weights)
        outcome = read_outcome(run, "train")
        np.testing.assert_array_equal(outcome.ids, ids)
        wrong = outcome.right() == 0
        error = weights[wrong].sum() / weights.sum()
        assert run.metrics["boosting/error"] == pytest.approx(error)
        assert run.metrics["boosting/vote"] == pytest.approx(np.log((1 - error) / error) + np.log(9))
        weights = weights * np.exp(run.metrics["boosting/vote"] * wrong)
        weights *= len(weights) / weights.sum()


def test_the_ensemble_is_their_weighted_vote_and_its_model_gives_it_by_itself(parent, members, interrupted):
    assert parent.params["ensemble.method"] == "boosting"
    votes = np.array([run.metrics["boosting/vote"] for run in members])
    outcomes = [read_outcome(run, "test") for run in members]
    chosen = np.stack([np.eye(10)[each.probabilities.argmax(1)] for each in outcomes])
    expected = np.einsum("mnc,m->nc", chosen, votes / votes.sum())
    said = read_outcome(parent, "test")
    order = np.argsort(outcomes[0].ids)
    np.testing.assert_allclose(said.probabilities[np.argsort(said.ids)], expected[order], atol=1e-6)
    right = (expected.argmax(1) == outcomes[0].targets).mean()
    assert parent.metrics["test/accuracy"] == pytest.approx(right)
    assert "weights are the members' votes" in " ".join(interrupted[1].split())
    images = torch.from_numpy(load_digits().images).mul(255 / 16).round().byte()[:50, None]
    with torch.no_grad():
        ensembled = mlflow.pytorch.load_model(f"runs:/{parent.run_id}/model")(images)
        models = [mlflow.pytorch.load_model(f"runs:/{run.run_id}/model") for run in members]
        alone = torch.stack([model(images) for model in models], 1)
    torch.testing.assert_close(ensembled, WeightedVotes((votes / votes.sum()).tolist())(alone))


def test_a_members_record_is_enough_to_make_it_again(members, darkroom):
    answer = darkroom("rerun", members[2].run_id)
    assert answer.status == 0, answer.errors
    assert "bit-identical" in answer.output


def test_the_ensembles_test_predictions_are_divided_into_slices(parent, darkroom):
    answer = darkroom("slices", parent.run_id, "--by", "class")
    assert answer.status == 0, answer.errors
    assert "class" in answer.output


def test_a_recipes_members_are_compared_as_the_ensemble_that_they_are(parent, members, darkroom):
    answer = darkroom("compare", "digits/cnn", "--where", f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    assert answer.status == 2
    answer = darkroom("compare", parent.run_id)
    assert answer.status == 0, answer.errors
    assert f"{parent.metrics['test/accuracy']:.4f}" in answer.output


def test_members_that_know_their_images_by_heart_are_not_boosted(darkroom):
    by_heart = ["--data.train_per_class=1", "--trainer.monitor=null", "--trainer.early_stopping=null"]
    answer = darkroom(*BOOSTED, *by_heart, "--trainer.max_epochs=60")
    assert answer.status == 1
    assert "boosting needs members that err" in answer.errors
    assert len(answer.errors.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--boost=1"], "--boost must be at least 2 members, got 1"),
        (["--boost=3", "--data.bootstrap=true"], "data.bootstrap can't be given with --boost"),
        (["--boost=3", "--data.sample_weights=a.csv"], "data.sample_weights can't be given with --boost"),
        (["--boost=3", "--data.val_fraction=0"], "the data has no val images"),
        (["--boost=3", "--mlflow.enabled=false"], "mlflow.enabled must be true"),
        (["--boost=3", "--folds=3"], "two ways to train several"),
    ],
)
def test_a_mistake_is_one_paragraph_and_starts_nothing(arguments, said, darkroom, store):
    before = len(store.runs_of("digits/cnn"))
    answer = darkroom("train", "digits/cnn", *arguments)
    assert answer.status == 2
    assert said in answer.errors
    assert len(answer.errors.strip().splitlines()) == 1
    assert len(store.runs_of("digits/cnn")) == before


def test_errors_votes_and_weights_are_those_of_scikit_learns_adaboost():
    images, targets = load_digits(return_X_y=True)
    theirs = AdaBoostClassifier(DecisionTreeClassifier(max_depth=4), n_estimators=10, random_state=0)
    theirs.fit(images, targets)
    weights = np.ones(len(images))
    scores = np.zeros((len(images), 10))
    for tree, error, vote in zip(
        theirs.estimators_, theirs.estimator_errors_, theirs.estimator_weights_, strict=True
    ):
        predicted = tree.predict(images)
        wrong = predicted != targets
        assert weighted_error(weights, wrong) == pytest.approx(error)
        assert vote_of(error, 10, len(images)) == pytest.approx(vote)
        weights = reweighted(weights, wrong, vote)
        assert weights.mean() == pytest.approx(1)
        scores[np.arange(len(images)), predicted] += vote
    np.testing.assert_array_equal(scores.argmax(1), theirs.predict(images))


def test_votes_are_counted_by_weight_and_the_member_at_chance_has_none():
    said = torch.tensor([[[0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.0, 0.1, 0.9]]])
    torch.testing.assert_close(WeightedVotes([0.6, 0.3, 0.1])(said), torch.tensor([[0.6, 0.0, 0.4]]))
    assert vote_of(0.9, num_classes=10, num_images=1000) == pytest.approx(0)
    assert np.isfinite(vote_of(1.0, num_classes=2, num_images=10))
