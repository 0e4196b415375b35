"""What a run leaves in MLflow: complete, readable by MLflow alone, and true."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk

from darkroom.datamodules import Digits
from darkroom.experiments.config.experiment import parse_experiment
from darkroom.experiments.evaluation.predictions import per_class_table, prediction_frame
from darkroom.experiments.tracking.prediction_artifacts import read_outcome
from darkroom.experiments.workflows.ensemble.members import score
from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.task import build_task

NAMES = build_task(10).metric_names
# Probabilities by another graph, or of fewer images at once: kernels add in another order, 1e-7 a layer.
FLOAT32 = 1e-5


@pytest.fixture
def digits() -> Digits:
    data = Digits()
    data.setup()
    return data


def test_params_are_the_resolved_configuration_and_what_follows_from_it(trained_run, store):
    params = store.client.get_run(trained_run.run_id).data.params
    assert params["model.lr"] == "0.003"
    assert params["model.backbone_options.widths"] == "[8]"
    assert params["trainer.max_epochs"] == "3"
    assert params["num_classes"] == "10"
    assert params["image_shape"] == "1x8x8"
    assert int(params["num_parameters"]) == 8 * 9 + 2 * 8 + (8 * 4 * 4 + 1) * 10
    assert int(params["steps_per_epoch"]) == -(-int(params["num_train_images"]) // 64)


def test_every_epoch_is_recorded_once_with_every_metric(trained_run, store):
    for stage in ("train", "val"):
        for name in NAMES:
            history = store.client.get_metric_history(trained_run.run_id, f"{stage}/{name}")
            assert [point.step for point in history] == [1, 2, 3], f"{stage}/{name}"
    for name in NAMES:
        assert f"test/{name}" in trained_run.metrics
        assert f"best/{name}" in trained_run.metrics


def test_the_chosen_checkpoint_is_the_best_epochs(trained_run, store):
    history = store.client.get_metric_history(trained_run.run_id, "val/loss")
    best = min(history, key=lambda point: point.value)
    assert trained_run.metrics["best/epoch"] == best.step
    assert trained_run.metrics["best/loss"] == pytest.approx(best.value, abs=1e-6)


def test_the_run_is_finished_and_tagged(trained_run):
    assert trained_run.status == "FINISHED"
    assert trained_run.name == "trained"
    assert trained_run.tags["recipe"] == "digits/cnn"
    assert trained_run.tags["seed"] == "0"
    assert not trained_run.checkpoint_folder.exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_stored_predictions_give_every_recorded_metric_by_scikit_learn(split, trained_run, digits):
    frame = trained_run.predictions(split)
    said = [f"{kind}_{label}" for kind in ("prob", "log_odds") for label in range(10)]
    assert list(frame.columns) == ["id", "target", *said]
    assert sorted(frame["id"]) == sorted(digits.splits[split].ids)
    labels = dict(zip(digits.splits[split].ids, digits.splits[split].targets.tolist(), strict=True))
    assert frame["target"].tolist() == [labels[sample_id] for sample_id in frame["id"]]
    targets = frame["target"].to_numpy()
    probabilities = frame.filter(like="prob_").to_numpy(dtype=np.float64)
    predicted = probabilities.argmax(1)
    one_hot = np.eye(10)[targets]
    expected = {
        "accuracy": sk.accuracy_score(targets, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, predicted),
        "precision_macro": sk.precision_score(targets, predicted, average="macro", zero_division=0),
        "recall_macro": sk.recall_score(targets, predicted, average="macro"),
        "f1_macro": sk.f1_score(targets, predicted, average="macro"),
        "f1_weighted": sk.f1_score(targets, predicted, average="weighted"),
        "auroc": sk.roc_auc_score(one_hot, probabilities, average="macro"),
        "average_precision": sk.average_precision_score(one_hot, probabilities, average="macro"),
        "log_loss": sk.log_loss(targets, probabilities / probabilities.sum(1, keepdims=True)),
        "ece": calibration_error(targets, probabilities),
    }
    stage = "best" if split == "val" else split
    for name, value in expected.items():
        assert trained_run.metrics[f"{stage}/{name}"] == pytest.approx(value, abs=1e-5), name


def calibration_error(targets, probabilities, bins=15):
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == targets
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        (places == place).mean() * abs(confidence[places == place].mean() - correct[places == place].mean())
        for place in np.unique(places)
    ]
    return sum(gaps)


def test_tables_agree_with_scikit_learn(trained_run):
    frame = trained_run.predictions("test")
    predicted = frame.filter(like="prob_").to_numpy().argmax(1)
    counts = pd.read_csv(trained_run.download("tables/test_confusion_matrix.csv"), index_col="true")
    np.testing.assert_array_equal(counts, sk.confusion_matrix(frame["target"], predicted, labels=range(10)))
    table = pd.read_csv(trained_run.download("tables/test_per_class.csv"))
    expected = sk.precision_recall_fscore_support(
        frame["target"], predicted, labels=range(10), zero_division=0
    )
    np.testing.assert_allclose(table[["precision", "recall", "f1", "support"]].T, expected)


def test_every_artifact_is_there(trained_run):
    for path in [
        "config.yaml",
        "network.txt",
        "checkpoints/best.ckpt",
        "data/facts.json",
        "data/split.parquet",
        "environment/packages.txt",
        "environment/hardware.json",
        "environment/sources.txt",
        *(f"predictions/{split}.parquet" for split in ("val", "test")),
        *(f"figures/{name}.png" for name in ("learning_curves", "confusion_matrix", "roc_curves")),
        *(f"figures/{name}.png" for name in ("precision_recall_curves", "reliability", "risk_coverage")),
        *(f"figures/{name}.png" for name in ("worst_mistakes", "samples", "augmented")),
    ]:
        assert trained_run.download(path).stat().st_size > 0, path


def test_the_recorded_configuration_parses_to_the_run_again(trained_run):
    experiment = parse_experiment([trained_run.read_text("config.yaml")], {})
    assert experiment.name == "digits/cnn"
    assert experiment.model.hparams["backbone_options"] == {"widths": [8]}
    assert experiment.trainer.max_epochs == 3


def test_the_recorded_data_is_the_data(trained_run, digits):
    facts = json.loads(trained_run.read_text("data/facts.json"))
    assert facts["fingerprint"] == digits.source_fingerprints
    assert facts["split_fingerprint"] == digits.facts()["split_fingerprint"]
    split = pd.read_parquet(trained_run.download("data/split.parquet"))
    for name, store in digits.splits.items():
        assert split.loc[split["split"] == name, "id"].tolist() == list(store.ids)


def test_the_environment_is_the_one_that_trained(trained_run):
    packages = trained_run.read_text("environment/packages.txt").splitlines()
    assert f"torch=={torch.__version__.partition('+')[0]}" in [line.partition("+")[0] for line in packages]
    assert json.loads(trained_run.read_text("environment/hardware.json"))["torch_threads"] == 1


def test_the_checkpoint_loads_without_pickled_code(trained_run):
    module = ImageClassifier.load_from_checkpoint(
        trained_run.download("checkpoints/best.ckpt"), weights_only=True
    )
    assert module.hparams["optimizer"] == "adamw"
    assert module.num_classes == 10


def test_the_logged_model_needs_mlflow_alone_and_predicts_what_is_stored(trained_run, digits):
    test = digits.splits["test"]
    frame = trained_run.predictions("test").set_index("id").loc[list(test.ids)]
    stored = frame.filter(like="prob_").to_numpy()
    uri = f"runs:/{trained_run.run_id}/model"
    generic = mlflow.pyfunc.load_model(uri)
    np.testing.assert_allclose(generic.predict(test.images.numpy()), stored, atol=FLOAT32)
    assert generic.metadata.metadata["class_names"] == list(digits.class_names)
    module = mlflow.pytorch.load_model(uri)
    with torch.no_grad():
        np.testing.assert_allclose(module(test.images).numpy(), stored, atol=FLOAT32)
        np.testing.assert_allclose(module(test.images[:7]).numpy(), stored[:7], atol=FLOAT32)
    with pytest.raises(mlflow.exceptions.MlflowException, match="uint8"):
        generic.predict(test.images.float().numpy())


def test_the_logged_model_predicts_the_same_whatever_the_memory_layout_in_training(darkroom, store):
    answer = darkroom("train", "digits/cnn", "--trainer.channels_last=true", "--trainer.max_epochs=1")
    assert answer.status == 0, answer.errors
    run = store.find_run(answer.output.rpartition("run ")[2].split()[0])
    data = Digits()
    data.setup()
    test = data.splits["test"]
    stored = run.predictions("test").set_index("id").loc[list(test.ids)].filter(like="prob_").to_numpy()
    predicted = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model").predict(test.images.numpy())
    np.testing.assert_allclose(predicted, stored, atol=1e-5)


def test_a_binary_task_stores_one_probability():
    frame = prediction_frame(["a", "b"], np.array([0, 1]), np.array([[0.75, 0.25], [0.5, 0.5]], np.float32))
    assert list(frame.columns) == ["id", "target", "prob_1"]
    assert frame["prob_1"].tolist() == [0.25, 0.5]


def test_a_class_nobody_predicts_has_zero_precision_and_no_warning():
    table = per_class_table(np.array([[2, 0], [3, 0]]), ("a", "b"))
    assert table["precision"].tolist() == [0.4, 0]
    assert table["f1"].tolist() == [pytest.approx(4 / 7), 0]


def test_what_ranks_is_stored_and_gives_the_recorded_metrics_to_scikit_learn(trained_run):
    frame = trained_run.predictions("test")
    scores = frame.filter(regex=r"^log_odds_\d+$").to_numpy(dtype=np.float64)
    targets = frame["target"].to_numpy()
    areas = [sk.roc_auc_score(targets == label, scores[:, label]) for label in range(10)]
    precisions = [sk.average_precision_score(targets == label, scores[:, label]) for label in range(10)]
    assert trained_run.metrics["test/auroc"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert trained_run.metrics["test/average_precision"] == pytest.approx(np.mean(precisions), abs=1e-6)
    outcome = read_outcome(trained_run, "test")
    np.testing.assert_array_equal(outcome.ranking, scores.astype(np.float32))
    assert score(outcome, "auroc") == pytest.approx(trained_run.metrics["test/auroc"], abs=1e-7)
