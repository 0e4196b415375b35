"""`darkroom ensemble`: fitted on validation, judged on test once, and a model that says the same again."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from darkroom.datamodules import Digits
from darkroom.experiments.cli.main import main
from darkroom.experiments.errors import RequestError
from darkroom.experiments.tracking.prediction_artifacts import read_outcome
from darkroom.experiments.tracking.run import RunRecord
from darkroom.experiments.tracking.store import open_store
from darkroom.experiments.workflows.ensemble.members import SPLITS, check_alike, read_members, trained_runs
from darkroom.experiments.workflows.ensemble.report import judge

pytestmark = pytest.mark.slow_first

SEEDS = ["seed0", "seed1"]
METHODS = ["soft_voting", "greedy", "stacking", "soup"]
# In a process of its own, which knows none of our modules.
PREDICT = """
import sys
import mlflow
import numpy as np
images = np.load("images.npy")
for run_id in sys.argv[1:]:
    np.save(f"{run_id}.npy", mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(images))
assert not {"experiments", "lightning_modules", "datamodules"} & set(sys.modules)
"""


@pytest.fixture(scope="session")
def ensembles(members_folder: Path) -> dict[str, str]:
    """The run of each method, of the two seeds."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(members_folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{members_folder / 'mlflow.db'}")
        for method in METHODS:
            assert main(["ensemble", *SEEDS, f"--method={method}", f"--out={method}.csv"]) == 0
            found[method] = open_store().find_run(f"{method} of 2").run_id
    return found


def said(run: RunRecord, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,) and probabilities (N, C), in the order of ids."""
    frame = run.predictions(split).sort_values("id")
    return frame["target"].to_numpy(), frame.filter(like="prob_").to_numpy(dtype=np.float64)


def test_soft_voting_is_the_mean_of_the_stored_probabilities(ensembles, members_store):
    for split in ("val", "test"):
        _, mean = said(members_store.run(ensembles["soft_voting"]), split)
        members = [said(members_store.find_run(name), split)[1] for name in SEEDS]
        np.testing.assert_allclose(mean, np.mean(members, axis=0), atol=1e-6)


def test_stacking_is_scikit_learns_regression_fitted_on_validation_alone(ensembles, members_store):
    runs = [members_store.find_run(name) for name in SEEDS]
    features = {
        split: np.log(np.hstack([said(run, split)[1] for run in runs]).clip(np.finfo(np.float32).eps))
        for split in ("val", "test")
    }
    fitted = LogisticRegression(tol=1e-8, max_iter=5000).fit(features["val"], said(runs[0], "val")[0])
    _, probabilities = said(members_store.run(ensembles["stacking"]), "test")
    np.testing.assert_allclose(probabilities, fitted.predict_proba(features["test"]), atol=1e-3)


def test_greedy_selection_is_on_validation_no_worse_than_the_best_member(ensembles, members_store):
    run = members_store.run(ensembles["greedy"])
    best = max(members_store.find_run(name).metrics["best/accuracy"] for name in SEEDS)
    assert run.metrics["best/accuracy"] >= best
    rows = list(csv.DictReader(Path("greedy.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == [*run.params["ensemble.members"].split(), "ensemble"]
    weights = [float(row["weight"]) for row in rows[:-1]]
    assert sum(weights) == pytest.approx(1)
    members = np.stack([said(members_store.find_run(name), "test")[1] for name in SEEDS])
    np.testing.assert_allclose(said(run, "test")[1], np.tensordot(weights, members, 1), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_its_metrics_are_those_of_its_predictions_by_the_names_of_training(method, ensembles, members_store):
    run = members_store.run(ensembles[method])
    trained = members_store.find_run("seed0")
    for split, stage in (("val", "best"), ("test", "test")):
        targets, probabilities = said(run, split)
        predicted = probabilities.argmax(1)
        assert run.metrics[f"{stage}/accuracy"] == pytest.approx(sk.accuracy_score(targets, predicted))
        f1 = sk.f1_score(targets, predicted, average="macro")
        assert run.metrics[f"{stage}/f1_macro"] == pytest.approx(f1, abs=1e-6)
        names = {name for name in trained.metrics if name.startswith(f"{stage}/")} - {"best/epoch"}
        lacking = names - run.metrics.keys()
        assert lacking == (set() if method == "soup" else {f"{stage}/loss"})
    assert {name for name in trained.metrics if name.startswith("calibration/")} <= run.metrics.keys()
    counts = sk.confusion_matrix(targets, predicted, labels=range(10))
    table = np.loadtxt(run.download("tables/test_confusion_matrix.csv"), delimiter=",", skiprows=1, dtype=int)
    np.testing.assert_array_equal(table[:, 1:], counts)
    assert run.tags["role"] == "ensemble"
    assert run.tags["members"].split(",") == [members_store.find_run(name).run_id for name in SEEDS]
    assert run.params["ensemble.method"] == method
    assert run.params["trainer.max_epochs"] == "2"
    assert "seed" not in run.params
    for name in ("confusion_matrix", "roc_curves", "reliability", "worst_mistakes"):
        assert run.download(f"figures/{name}.png").stat().st_size > 0


def test_each_logged_model_predicts_by_itself_what_is_recorded(ensembles, members_store, tmp_path):
    data = Digits()
    data.setup()
    test = data.splits["test"]
    np.save(tmp_path / "images.npy", test.images.numpy())
    command = [sys.executable, "-P", "-c", PREDICT, *ensembles.values()]
    environment = {"PATH": "/usr/bin:/bin", "MLFLOW_TRACKING_URI": members_store.uri, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for method, run_id in ensembles.items():
        frame = members_store.run(run_id).predictions("test").set_index("id").loc[list(test.ids)]
        recorded = frame.filter(like="prob_").to_numpy()
        np.testing.assert_allclose(np.load(tmp_path / f"{run_id}.npy"), recorded, atol=1e-5, err_msg=method)


def test_the_gain_is_over_the_member_that_is_best_on_validation(ensembles, members_store):
    members = read_members([members_store.find_run(name) for name in SEEDS])
    run = members_store.run(ensembles["soft_voting"])
    report = judge(members, {split: read_outcome(run, split) for split in SPLITS}, None, "", "log_loss")
    best = min((member.run for member in members), key=lambda each: each.metrics["best/log_loss"])
    gain = best.metrics["test/log_loss"] - run.metrics["test/log_loss"]
    assert report.best == best.run_id[:8]
    assert report.gain == pytest.approx(gain, abs=1e-6)
    differences = [np.log(said(each, "test")[1]) for each in (run, best)]
    targets = said(run, "test")[0]
    own, others = (each[np.arange(len(targets)), targets] for each in differences)
    half_width = 1.96 * np.std(own - others) / np.sqrt(len(targets))
    assert report.interval == pytest.approx((gain - half_width, gain + half_width), abs=0.2 * half_width)


def test_ensembles_are_no_members_of_ensembles(ensembles, members_store):
    runs, notes = trained_runs(members_store.runs_of("digits/cnn"))
    assert sorted(run.name for run in runs) == ["elsewhere", "seed0", "seed1", "wide"]
    (note,) = notes
    assert note.startswith("left out: 4 runs that were made of others")


def test_compare_takes_an_ensemble_for_a_configuration_of_its_own(ensembles, members_store, capsys):
    assert main(["compare", "seed0", "seed1", ensembles["soft_voting"]]) == 0
    assert "method=soft_voting" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which runs?"),
        (["seed0"], "needs at least two finished runs, got 1"),
        (["seed0", "elsewhere"], "validation images"),
        (["seed0", "wide", "--method=soup"], "model.backbone_options.widths is [8] and [12]"),
        (["seed0", "seed1", "--metric=acuracy"], "did you mean accuracy"),
        (["seed0", "seed1", "--metric=loss"], "there is no loss of predictions"),
        (["seed0", "seed1", "--out=a.pdf"], "must name a file that ends in .md or .csv"),
        (["seed0", "seed1", "--out=nowhere/a.md"], "there is no folder"),
        (["seed0", "seed1", "--model.lr=1"], "can't be changed"),
    ],
)
def test_what_is_no_ensemble_is_refused_and_leaves_no_run(arguments, words, members_store, capsys):
    before = len(members_store.runs_of("digits/cnn"))
    assert main(["ensemble", *arguments]) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert errors.count("\n") == 1
    assert len(members_store.runs_of("digits/cnn")) == before


def test_runs_of_other_data_under_the_same_names_are_refused(members_store):
    one, other = read_members([members_store.find_run(name) for name in SEEDS[:2]])
    check_alike(one, other)
    with pytest.raises(RequestError, match="other test data, by its fingerprint"):
        check_alike(one, replace(other, fingerprints=other.fingerprints | {"test": "another"}))
    with pytest.raises(RequestError, match="know 0, 1"):
        check_alike(one, replace(other, class_names=tuple("abcdefghij")))
    outcome = other.outcomes["test"]
    moved = replace(outcome, targets=(outcome.targets + 1) % 10)
    with pytest.raises(RequestError, match="disagree about the labels of test images"):
        check_alike(one, replace(other, outcomes={**other.outcomes, "test": moved}))
