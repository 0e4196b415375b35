"""Ensembles of cross-validations: fitted out of fold, judged by the mean of the folds' networks."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from darkroom.datamodules import Digits
from darkroom.experiments.cli.main import main
from darkroom.experiments.tracking.run import RunRecord
from darkroom.experiments.tracking.store import Store, open_store
from darkroom.experiments.workflows.ensemble.cross_validated import gather_folds
from darkroom.experiments.workflows.ensemble.members import read_members


def parents(store: Store) -> list[RunRecord]:
    found = [run for run in store.runs_of("digits/cnn") if run.tags.get("role") == "cross_validation"]
    return sorted(found, key=lambda run: len(store.child_runs(run)))


def said(run: RunRecord, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,) and probabilities (N, C), in the order of ids."""
    frame = run.predictions(split).sort_values("id")
    return frame["target"].to_numpy(), frame.filter(like="prob_").to_numpy(dtype=np.float64)


def mean_of_folds(store: Store, parent: RunRecord) -> np.ndarray:
    return np.mean([said(fold, "test")[1] for fold in store.child_runs(parent)], axis=0)


@pytest.fixture(scope="session")
def stacked(folded_folder: Path) -> str:
    """The run of the two cross-validations stacked, chosen by their recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folded_folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folded_folder / 'mlflow.db'}")
        assert main(["ensemble", "digits/cnn", "--method=stacking", "--out=stacked.md"]) == 0
        return open_store().find_run("stacking of 2").run_id


def test_a_member_is_judged_out_of_fold_and_is_the_mean_of_its_networks(folded_store):
    runs = [fold for parent in parents(folded_store) for fold in folded_store.child_runs(parent)]
    members = read_members(*gather_folds(folded_store, runs))
    assert [member.run.run_id for member in members] == [run.run_id for run in parents(folded_store)]
    assert [len(member.networks) for member in members] == [2, 3]
    for member in members:
        targets, probabilities = said(member.run, "val")
        assert len(targets) == 1425  # all training images
        np.testing.assert_array_equal(member.outcomes["val"].probabilities, probabilities.astype(np.float32))
        mean = mean_of_folds(folded_store, member.run)
        np.testing.assert_allclose(member.outcomes["test"].probabilities, mean, atol=1e-6)
        assert "data.fold" not in member.params


def test_stacking_is_scikit_learns_regression_on_the_out_of_fold_predictions(stacked, folded_store):
    run = folded_store.run(stacked)
    runs = [folded_store.run(run_id) for run_id in run.tags["members"].split(",")]
    floor = np.finfo(np.float32).eps
    learned = np.log(np.hstack([said(run, "val")[1] for run in runs]).clip(floor))
    judged = np.log(np.hstack([mean_of_folds(folded_store, run) for run in runs]).clip(floor))
    targets = said(runs[0], "val")[0]
    fitted = LogisticRegression(tol=1e-8, max_iter=5000).fit(learned, targets)
    test_targets, probabilities = said(run, "test")
    np.testing.assert_allclose(probabilities, fitted.predict_proba(judged), atol=1e-3)
    assert run.metrics["test/accuracy"] == pytest.approx(
        accuracy_score(test_targets, probabilities.argmax(1))
    )
    assert run.metrics["best/accuracy"] == pytest.approx(fitted.score(learned, targets), abs=1e-3)


def test_its_logged_model_predicts_by_itself_what_is_recorded(stacked, folded_store):
    data = Digits()
    data.setup()
    model = mlflow.pytorch.load_model(f"runs:/{stacked}/model")
    test = data.splits["test"]
    with torch.no_grad():
        predicted = model(test.images).numpy()
    frame = folded_store.run(stacked).predictions("test").set_index("id").loc[list(test.ids)]
    np.testing.assert_allclose(predicted, frame.filter(like="prob_").to_numpy(), atol=1e-5)


def test_it_records_its_members_and_what_it_was_fitted_on(stacked, folded_store):
    run = folded_store.run(stacked)
    assert set(run.tags["members"].split(",")) == {parent.run_id for parent in parents(folded_store)}
    fold = folded_store.child_runs(parents(folded_store)[0])[0]
    assert int(run.params["num_parameters"]) == 5 * int(fold.params["num_parameters"])
    assert {"data.fold", "data.folds", "seed"}.isdisjoint(run.params)
    assert json.loads(run.read_text("data/facts.json"))["images"]["val"] == 1425
    assert "out-of-fold predictions, on which it was fitted, flatter" in Path("stacked.md").read_text()


@pytest.mark.parametrize("method", ["greedy", pytest.param("soft_voting", marks=pytest.mark.slow)])
def test_other_methods_take_cross_validations_too(method, folded_store, capsys):
    ids = [run.run_id for run in parents(folded_store)]
    assert main(["ensemble", *ids, f"--method={method}"]) == 0
    assert "out of fold" in capsys.readouterr().out


def test_a_part_of_a_cross_validations_folds_is_none(folded_store):
    folds = folded_store.child_runs(parents(folded_store)[1])
    runs, whole = gather_folds(folded_store, folds[:2])
    assert [run.run_id for run in runs] == [run.run_id for run in folds[:2]]
    assert not whole


def test_what_is_no_ensemble_of_cross_validations_is_refused(folded_store, capsys):
    first, second = parents(folded_store)
    single = folded_store.child_runs(second)[0].run_id
    for arguments, words in (
        ([first.run_id], "at least two finished runs, got 1"),
        ([first.run_id, single], "give members of one kind"),
        ([first.run_id, second.run_id, "--method=soup"], "trained on the same images"),
    ):
        assert main(["ensemble", *arguments]) == 2
        errors = capsys.readouterr().err
        assert words in errors
        assert errors.count("\n") == 1
