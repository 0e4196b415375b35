"""Every multi-label metric is scikit-learn's; thresholds are those that trying all of them finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torch import Tensor

from darkroom.lightning_modules.metrics.collection import build_label_metrics, tuned_metrics
from darkroom.lightning_modules.metrics.names import LABEL_METRICS, TUNED_METRICS
from darkroom.lightning_modules.metrics.thresholds import best_threshold, choose_thresholds

SHARES = [0.05, 0.3, 0.5, 0.9]


def predictions(tied: bool = False, count: int = 600) -> tuple[Tensor, Tensor]:
    """Probabilities (N, 4) better than chance, certainties among them, and labels of unequal frequency."""
    rng = np.random.default_rng(0)
    targets = (rng.random((count, 4)) < SHARES).astype(np.float32)
    logits = rng.normal(size=(count, 4)) * 2 + 2 * targets - 1.5
    if tied:
        logits = logits.round()
    probabilities = torch.from_numpy(logits).float().sigmoid()
    probabilities[:20] = 1
    probabilities[20:30] = 0
    return probabilities, torch.from_numpy(targets)


def decisions_by_sklearn(truth: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    return {
        "accuracy": 1 - sk.hamming_loss(truth, predicted),
        "exact_match": sk.accuracy_score(truth, predicted),
        "precision_macro": sk.precision_score(truth, predicted, average="macro", zero_division=0),
        "recall_macro": sk.recall_score(truth, predicted, average="macro", zero_division=0),
        "f1_macro": sk.f1_score(truth, predicted, average="macro", zero_division=0),
        "f1_weighted": sk.f1_score(truth, predicted, average="weighted", zero_division=0),
        "f1_micro": sk.f1_score(truth, predicted, average="micro", zero_division=0),
    }


def calibration_error(truth: NDArray[Any], scores: NDArray[Any]) -> float:
    shares, means = calibration_curve(truth, scores, n_bins=15)
    sizes = np.histogram(scores, bins=np.linspace(0, 1, 16))[0]
    return float(np.abs(shares - means) @ sizes[sizes > 0] / len(scores))


def by_sklearn(probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    scores, truth = probabilities.numpy(), targets.numpy()
    columns = list(zip(truth.T, scores.T, strict=True))
    return decisions_by_sklearn(truth, scores > 0.5) | {
        "auroc": sk.roc_auc_score(truth, scores, average="macro"),
        "average_precision": sk.average_precision_score(truth, scores, average="macro"),
        "log_loss": float(np.mean([sk.log_loss(*column) for column in columns])),
        "ece": float(np.mean([calibration_error(*column) for column in columns])),
    }


def computed(probabilities: Tensor, targets: Tensor, chunks: int = 3) -> dict[str, float]:
    collection = build_label_metrics(probabilities.shape[1])
    for rows, labels in zip(probabilities.chunk(chunks), targets.chunk(chunks), strict=True):
        collection.update(rows, labels)
    return {name: float(value) for name, value in collection.compute().items()}


@pytest.mark.parametrize("tied", [False, True])
def test_each_metric_is_scikit_learns(tied: bool) -> None:
    probabilities, targets = predictions(tied)
    values = computed(probabilities, targets)
    assert values == pytest.approx(by_sklearn(probabilities, targets), abs=2e-6)
    assert {"loss", *values} == set(LABEL_METRICS)


def test_a_label_that_nobody_has_or_predicts_counts_nothing_and_is_not_ranked() -> None:
    probabilities, targets = predictions()
    targets[:, 0], probabilities[:, 0] = 0, probabilities[:, 0] * 0.4
    values = computed(probabilities, targets)
    scores, truth = probabilities.numpy(), targets.numpy()
    expected = decisions_by_sklearn(truth, scores > 0.5)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(truth[:, 1:], scores[:, 1:]), abs=1e-6)


def test_tuned_metrics_are_scikit_learns_of_labels_above_their_thresholds() -> None:
    probabilities, targets = predictions()
    thresholds = [0.1, 0.4, 0.5, 0.8]
    expected = decisions_by_sklearn(targets.numpy(), probabilities.numpy() > thresholds)
    values = tuned_metrics(probabilities, targets, thresholds)
    assert values == pytest.approx({f"{name}_tuned": value for name, value in expected.items()}, abs=1e-6)
    assert set(values) == set(TUNED_METRICS)


@pytest.mark.parametrize("tied", [False, True])
def test_no_threshold_gives_a_higher_f1_than_the_chosen_one(tied: bool) -> None:
    probabilities, targets = predictions(tied)
    chosen = choose_thresholds(probabilities, targets)
    for label, threshold in enumerate(chosen.tolist()):
        scores, truth = probabilities[:, label].double().numpy(), targets[:, label].numpy()
        tried = [sk.f1_score(truth, scores > t) for t in np.unique([0, *scores, *(scores - 1e-9)])]
        assert sk.f1_score(truth, scores > threshold) == pytest.approx(max(tried))


def test_half_is_chosen_where_it_is_as_good_as_any() -> None:
    positives = torch.tensor([True, True, False, False])
    assert best_threshold(torch.tensor([0.9, 0.7, 0.2, 0.1]), positives) == 0.5
    assert best_threshold(torch.tensor([0.4, 0.3, 0.2, 0.1]), positives) == pytest.approx(0.25)


@pytest.mark.parametrize("positives", [[], [True, True], [False, False]])
def test_without_positives_or_negatives_the_threshold_is_a_half(positives: list[bool]) -> None:
    assert best_threshold(torch.rand(len(positives)), torch.tensor(positives, dtype=torch.bool)) == 0.5


def test_a_threshold_tells_neighbouring_float32_apart() -> None:
    above = torch.tensor(0.3)
    below = torch.nextafter(above, torch.tensor(0.0))
    scores = torch.stack([above, below])
    threshold = best_threshold(scores, torch.tensor([True, False]))
    values = tuned_metrics(scores[:, None].repeat(1, 2), torch.eye(2)[:, :1].repeat(1, 2), [threshold] * 2)
    assert values["exact_match_tuned"] == 1
