"""A multi-label run from end to end: what it records is true, by scikit-learn and by MLflow alone."""

from __future__ import annotations

import contextlib
import re

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk
from support.datasets import LabelledBars

from darkroom import datamodules
from darkroom.experiments.errors import RequestError
from darkroom.experiments.evaluation.predictions import label_confusion_counts, prediction_frame
from darkroom.experiments.reporting import calibration_plots, image_grids, plots
from darkroom.experiments.tracking.prediction_artifacts import recorded_thresholds
from darkroom.experiments.tracking.run import RunRecord
from darkroom.lightning_modules.metrics.names import LABEL_METRICS, TUNED_METRICS

# Probabilities by another graph, or of fewer images at once: kernels add in another order, 1e-7 a layer.
FLOAT32 = 1e-5
RECIPE = """
name: bars/cnn
data: LabelledBars
model:
  class_path: ImageClassifier
  backbone_options: {widths: [8, 16]}
  lr: 0.01
trainer: {max_epochs: 4, monitor: val/average_precision, precision: 32-true}
"""


@pytest.fixture
def known_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars as a data source like any other."""
    monkeypatch.setattr(datamodules, "LabelledBars", LabelledBars, raising=False)
    monkeypatch.setattr(datamodules, "__all__", [*datamodules.__all__, "LabelledBars"])


@pytest.fixture
def run(known_source, inside, darkroom, store) -> RunRecord:
    """One run of bars, trained by the first test that asks for it."""
    with contextlib.suppress(RequestError):  # there is none yet
        return store.find_run("bars")
    (inside.folder / "bars.yaml").write_text(RECIPE)
    # Dim bars: some labels are to be wrong.
    answer = darkroom("train", "bars.yaml", "--data.brightness=50", "--mlflow.run_name=bars")
    assert answer.status == 0, answer.errors
    assert re.search(r"f1_macro_tuned +│ +│ 0\.\d+", answer.output)
    return store.find_run("bars")


@pytest.fixture
def bars() -> LabelledBars:
    data = LabelledBars(brightness=50)
    data.setup()
    return data


def truth_and_scores(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return frame.filter(like="target_").to_numpy(), frame.filter(like="prob_").to_numpy()


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_prediction_store_has_each_label_and_gives_the_recorded_metrics(run, bars, split):
    frame = run.predictions(split)
    numbers = range(3)
    columns = [f"{kind}_{label}" for kind in ("target", "prob", "log_odds") for label in numbers]
    assert list(frame.columns) == ["id", *columns]
    assert frame["id"].tolist() == list(bars.splits[split].ids)
    truth, scores = truth_and_scores(frame)
    np.testing.assert_array_equal(truth, bars.splits[split].targets)
    stage = "best" if split == "val" else "test"
    expected = {
        "accuracy": 1 - sk.hamming_loss(truth, scores > 0.5),
        "exact_match": sk.accuracy_score(truth, scores > 0.5),
        "f1_macro": sk.f1_score(truth, scores > 0.5, average="macro"),
        "average_precision": sk.average_precision_score(truth, frame.filter(like="log_odds_")),
        "auroc": sk.roc_auc_score(truth, frame.filter(like="log_odds_")),
    }
    for name, value in expected.items():
        assert run.metrics[f"{stage}/{name}"] == pytest.approx(value, abs=1e-5), name
    for name in LABEL_METRICS:
        assert f"{stage}/{name}" in run.metrics


def test_thresholds_are_best_on_validation_and_applied_to_test(run):
    thresholds = recorded_thresholds(run)
    truth, scores = truth_and_scores(run.predictions("val"))
    for label, threshold in enumerate(thresholds):
        candidates = [0.0, *scores[:, label]]
        best = max(sk.f1_score(truth[:, label], scores[:, label] > candidate) for candidate in candidates)
        assert sk.f1_score(truth[:, label], scores[:, label] > threshold) == pytest.approx(best)
    truth, scores = truth_and_scores(run.predictions("test"))
    predicted = scores > np.array(thresholds)
    expected = sk.f1_score(truth, predicted, average="macro")
    assert run.metrics["test/f1_macro_tuned"] == pytest.approx(expected, abs=1e-6)
    assert run.metrics["test/exact_match_tuned"] == pytest.approx(
        sk.accuracy_score(truth, predicted), abs=1e-6
    )
    assert not any(f"best/{name}" in run.metrics for name in TUNED_METRICS)  # they were chosen there


def test_each_label_has_a_temperature_of_its_own(run):
    table = pd.read_csv(run.download("tables/temperatures.csv"))
    assert table["label"].tolist() == list(LabelledBars.class_names)
    truth, scores = truth_and_scores(run.predictions("val"))
    for label, temperature in enumerate(table["temperature"]):
        logits = np.log(scores[:, label] / (1 - scores[:, label]))
        losses = [
            sk.log_loss(truth[:, label], 1 / (1 + np.exp(-logits / (temperature * factor))))
            for factor in (0.98, 1, 1.02)
        ]
        assert min(losses) == losses[1]
    assert "calibration/temperature" not in run.metrics
    assert run.metrics["calibration/log_loss_scaled"] > 0


def test_tables_agree_with_scikit_learn(run):
    truth, scores = truth_and_scores(run.predictions("test"))
    thresholds = recorded_thresholds(run)
    predicted = scores > np.array(thresholds)
    table = pd.read_csv(run.download("tables/test_per_label.csv"))
    assert table["label"].tolist() == list(LabelledBars.class_names)
    expected = sk.precision_recall_fscore_support(truth, predicted, zero_division=0)
    np.testing.assert_allclose(table[["precision", "recall", "f1", "support"]].T, expected)
    areas = [
        sk.average_precision_score(truth, scores, average=None),
        sk.roc_auc_score(truth, scores, average=None),
    ]
    np.testing.assert_allclose(table[["average_precision", "auroc"]].T, areas, atol=1e-6)
    np.testing.assert_allclose(table["threshold"], thresholds)
    counts = pd.read_csv(run.download("tables/test_confusion_matrices.csv"), index_col="label")
    matrices = sk.multilabel_confusion_matrix(truth, predicted)
    np.testing.assert_array_equal(counts, matrices.reshape(3, 4))
    np.testing.assert_array_equal(label_confusion_counts(truth, predicted), matrices)


def test_every_figure_and_the_split_are_there(run, bars):
    for name in ("learning_curves", "confusion_matrices", "roc_curves", "precision_recall_curves"):
        assert run.download(f"figures/{name}.png").stat().st_size > 0
    for name in ("reliability", "risk_coverage", "worst_mistakes", "samples", "augmented"):
        assert run.download(f"figures/{name}.png").stat().st_size > 0
    split = pd.read_parquet(run.download("data/split.parquet"))
    for name, images in bars.splits.items():
        rows = split[split["split"] == name]
        np.testing.assert_array_equal(rows.filter(like="target_"), images.targets)


def test_evaluate_gives_what_was_recorded(run, darkroom):
    for split, count in (("test", len(LABEL_METRICS) + len(TUNED_METRICS)), ("val", len(LABEL_METRICS))):
        answer = darkroom("evaluate", run.run_id, f"--split={split}")
        assert answer.status == 0, answer.errors
        rows = re.findall(rf"│ {split}/(\w+)\s+│\s+([\d.]+) │\s+([\d.]+) │", answer.output)
        assert len(rows) == count
        assert all(recorded == now for _, recorded, now in rows)


def test_the_logged_model_gives_sigmoids_and_carries_the_thresholds(run, bars):
    images = bars.splits["test"].images
    _, stored = truth_and_scores(run.predictions("test"))
    generic = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model")
    np.testing.assert_allclose(generic.predict(images.numpy()), stored, atol=FLOAT32)
    assert generic.metadata.metadata["class_names"] == list(LabelledBars.class_names)
    assert generic.metadata.metadata["task"] == "multilabel"
    assert generic.metadata.metadata["thresholds"] == pytest.approx(recorded_thresholds(run))
    with torch.no_grad():
        module = mlflow.pytorch.load_model(f"runs:/{run.run_id}/model")
        np.testing.assert_allclose(module(images[:7]).numpy(), stored[:7], atol=FLOAT32)


def test_without_validation_thresholds_are_a_half_and_nothing_is_called_tuned(
    known_source, inside, darkroom, store
):
    (inside.folder / "bars.yaml").write_text(RECIPE)
    answer = darkroom(
        "train", "bars.yaml", "--data.val_fraction=0", "--trainer.max_epochs=1", "--trainer.monitor=null"
    )
    assert answer.status == 0, answer.errors
    untuned = store.find_run(answer.output.rpartition("run ")[2].split()[0])
    assert recorded_thresholds(untuned) == [0.5] * 3
    assert not any(name.endswith("_tuned") for name in untuned.metrics)


def test_a_metric_that_the_task_does_not_have_is_refused_before_training(known_source, inside, darkroom):
    (inside.folder / "bars.yaml").write_text(RECIPE)
    answer = darkroom("train", "bars.yaml", "--trainer.monitor=val/balanced_accuracy")
    assert answer.status == 2
    assert "trainer.monitor: a multilabel task of 3 classes has no balanced_accuracy" in answer.errors
    other = darkroom("train", "digits/cnn", "--trainer.monitor=val/exact_match")
    assert other.status == 2
    assert "exact_match" in other.errors


# Figures ----------------------------------------------------------------------------------------


def example(num_labels: int = 3, count: int = 400) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(num_labels)
    targets = (random.random((count, num_labels)) < 0.3).astype(np.float32)
    logits = random.normal(size=targets.shape) + 2 * targets - 1
    return targets, 1 / (1 + np.exp(-logits)), [f"label {index}" for index in range(num_labels)]


@pytest.mark.parametrize("num_labels", [2, 5])
def test_curves_are_drawn_of_each_label_with_scikit_learns_areas(num_labels: int) -> None:
    targets, scores, names = example(num_labels)
    for draw, score in (
        (plots.roc_curves, sk.roc_auc_score),
        (plots.precision_recall_curves, sk.average_precision_score),
    ):
        expected = dict(zip(names, score(targets, scores, average=None), strict=True))
        expected["macro average"] = score(targets, scores, average="macro")
        legend = [text.get_text().split("  ") for text in draw(targets, scores, names).legends[0].get_texts()]
        assert {name: float(value) for value, name in legend} == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize("num_labels", [1, 3, 7, 40])
def test_each_confusion_matrix_has_its_labels_counts_and_name(num_labels: int) -> None:
    targets, scores, names = example(num_labels)
    counts = sk.multilabel_confusion_matrix(targets, scores > 0.5)
    if num_labels == 1:
        counts = counts[1:]
    figure = plots.label_confusion_matrices(counts, names, [0.5] * num_labels)
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == min(num_labels, 30)
    for label, axes in enumerate(drawn):
        assert axes.get_title().startswith(f"label {label}\n")
        for text in axes.texts:
            column, row = text.get_position()
            assert int(text.get_text().replace(",", "")) == counts[label, row, column]


def test_the_reliability_title_is_the_mean_error_of_labels() -> None:
    targets, scores, _ = example()
    shares = []
    for truth, column in zip(targets.T, scores.T, strict=True):
        bins = np.minimum((column * 15).astype(int), 14)
        gaps = [
            (bins == place).mean() * abs(truth[bins == place].mean() - column[bins == place].mean())
            for place in np.unique(bins)
        ]
        shares.append(sum(gaps))
    figure = calibration_plots.reliability_diagram(targets, scores)
    assert f"{np.mean(shares):.4f}" in figure.axes[0].get_title(loc="left")


def test_the_worst_label_mistakes_come_first_and_say_what_is_wrong() -> None:
    images = np.zeros((4, 1, 8, 8), np.uint8)
    targets = np.array([[1, 0], [1, 0], [0, 0], [1, 1]])
    scores = np.array([[0.9, 0.1], [0.05, 0.6], [0.4, 0.75], [0.9, 0.2]])
    figure = image_grids.worst_label_mistakes(
        images, targets, scores, ["a", "b"], [0.3, 0.7], ids=list("wxyz")
    )
    titles = [text.get_text() for text in figure.axes[0].texts]
    # In the second image b is right at its threshold; in the third a is less wrong than b.
    expected = ["a 0.05\nbut present", "x", "b 0.20\nbut present", "z", "b 0.75\nbut absent", "y"]
    assert titles == expected
    assert figure.axes[0].get_title(loc="left") == "3 of 3 images with a wrong label, of 4"


def test_the_sample_sheet_shows_an_image_in_the_row_of_each_of_its_labels() -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.full((3, 1, 4, 4), 50, np.uint8)
    targets = np.array([[1, 0], [1, 1], [0, 1]])
    (axes,) = image_grids.sample_sheet(images, targets, ["a", "b"], per_class=2).axes
    picture = axes.images[0].get_array()
    side = picture.shape[0] // 2, picture.shape[1] // 2
    shown = [
        [picture[(2 * r + 1) * side[0] // 2, (2 * c + 1) * side[1] // 2, 0] for c in (0, 1)] for r in (0, 1)
    ]
    assert shown == [[0, 50], [50, 100]]


def test_two_labels_are_both_stored() -> None:
    frame = prediction_frame(["a"], np.array([[1.0, 0.0]]), np.array([[0.75, 0.25]], np.float32))
    assert list(frame.columns) == ["id", "target_0", "target_1", "prob_0", "prob_1"]
