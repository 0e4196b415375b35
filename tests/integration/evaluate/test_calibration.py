"""Calibration errors are torchmetrics' and scikit-learn's; a temperature that was put in is found again."""

from __future__ import annotations

import re
from itertools import permutations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.special import expit, softmax
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from darkroom.experiments.evaluation.calibration import (
    CALIBRATION_METRICS,
    adaptive_error,
    errors,
    judge,
    risk_coverage,
    summary,
)
from darkroom.experiments.evaluation.temperature_scaling import (
    at_temperature,
    fit_temperature,
    fit_temperatures,
)
from darkroom.experiments.reporting.calibration_plots import reliability_diagram, risk_coverage_curve
from darkroom.experiments.tracking.prediction_artifacts import read_outcome


def predictions(num_classes: int, size: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,) and probabilities (N, C), better than chance and not calibrated."""
    random = np.random.default_rng(num_classes)
    targets = random.integers(0, num_classes, size)
    logits = random.normal(size=(size, num_classes))
    logits[np.arange(size), targets] += 1.5
    return targets, softmax(1.7 * logits, axis=1)


def drawn_from(logits: np.ndarray) -> np.ndarray:
    """Classes (N,), each drawn with the probabilities of its logits (N, C)."""
    noise = np.random.default_rng(1).gumbel(size=logits.shape)
    return (logits + noise).argmax(axis=1)


# Temperature ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_the_temperature_of_simulated_logits_is_found_again(num_classes: int, temperature: float) -> None:
    logits = 2 * np.random.default_rng(0).normal(size=(20_000, num_classes))
    targets = drawn_from(logits)
    stored = softmax(temperature * logits, axis=1).astype(np.float32)
    fitted = fit_temperature(targets, stored)
    assert fitted == pytest.approx(temperature, rel=0.05)
    found = judge(targets, stored, [fitted], stored)
    assert found.metrics["calibration/ece_scaled"] < 0.015 < errors(targets, stored)["ece"]
    assert found.metrics["calibration/log_loss_scaled"] < errors(targets, stored)["log_loss"]
    np.testing.assert_array_equal(found.scaled.argmax(axis=1), stored.argmax(axis=1))


def test_labels_have_their_own_temperatures() -> None:
    logits = 0.8 * np.random.default_rng(0).normal(size=(20_000, 2))
    targets = (np.random.default_rng(1).random(logits.shape) < expit(logits)).astype(np.float32)
    stored = expit(logits * [3.0, 0.5]).astype(np.float32)
    assert fit_temperatures(targets, stored) == pytest.approx([3.0, 0.5], rel=0.05)
    found = judge(targets, stored, [3.0, 0.5], stored)
    np.testing.assert_allclose(found.scaled, expit(logits), atol=1e-3)  # of float32
    assert "calibration/temperature" not in found.metrics


def test_scaling_is_that_of_the_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_allclose(at_temperature(softmax(logits, 1), 1.7), softmax(logits / 1.7, 1))


def test_where_no_validation_image_is_wrong_nothing_is_scaled_and_it_is_said() -> None:
    targets, probabilities = predictions(3)
    perfect = np.eye(3)[targets] * 0.4 + 0.2
    assert fit_temperature(targets, perfect) is None
    found = judge(targets, probabilities, [fit_temperature(targets, perfect)], probabilities)
    assert found.scaled is None
    assert set(found.metrics) == {f"calibration/{name}" for name in ("adaptive_ece", "brier", "aurc")}
    assert "no temperature" in str(summary(found.metrics))


def test_certain_and_wrong_is_a_finite_loss() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    fitted = fit_temperature(np.array([0, 1, 1]), certain)
    assert fitted is not None
    assert np.isfinite(
        judge(np.array([0, 1, 1]), certain, [fitted], certain).metrics["calibration/log_loss_scaled"]
    )


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 10])
def test_errors_are_those_of_torchmetrics_and_scikit_learn(num_classes: int) -> None:
    targets, probabilities = predictions(num_classes)
    found = errors(targets, probabilities)
    expected = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(targets), num_classes, n_bins=15
    )
    assert found["ece"] == pytest.approx(float(expected), abs=1e-6)
    assert found["log_loss"] == pytest.approx(sk.log_loss(targets, probabilities), rel=1e-6)
    given = probabilities[:, 1] if num_classes == 2 else probabilities
    assert found["brier"] == pytest.approx(sk.brier_score_loss(targets, given))


def test_errors_of_labels_are_means_over_labels() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random((400, 3))
    targets = (random.random((400, 3)) < probabilities**2).astype(float)
    found = errors(targets, probabilities)
    columns = list(zip(targets.T, probabilities.T, strict=True))
    eces = [binary_calibration_error(torch.tensor(p), torch.tensor(t), n_bins=15) for t, p in columns]
    assert found["ece"] == pytest.approx(float(torch.stack(eces).mean()), abs=1e-6)
    assert found["brier"] == pytest.approx(np.mean([sk.brier_score_loss(t, p) for t, p in columns]))
    assert found["log_loss"] == pytest.approx(np.mean([sk.log_loss(t, p) for t, p in columns]))


def test_the_adaptive_error_averages_over_bins_of_equally_many_whatever_their_order() -> None:
    scores = np.array([0.5, 0.6, 0.9, 0.9, 0.9, 1.0])
    hits = np.array([1.0, 0, 1, 1, 0, 1])
    # Bins: (0.5, 0.6) with 1 of 2 right, (0.9, 0.9) with 2/3 of each, (0.9, 1.0) with 2/3 and 1.
    expected = (abs(1.1 - 1) + abs(1.8 - 4 / 3) + abs(1.9 - 5 / 3)) / 6
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [4, 0, 2, 5, 1, 3]):
        assert adaptive_error(hits[order], scores[order], 3) == pytest.approx(expected)


# Selective prediction ---------------------------------------------------------------------------


def test_the_area_under_the_risk_coverage_curve_is_that_worked_by_hand() -> None:
    # Surest first: right, wrong, right, wrong; risks 0, 1/2, 1/3, 2/4.
    coverages, risks = risk_coverage(np.array([1.0, 0, 0, 1]), np.array([0.6, 0.7, 0.9, 0.8]))
    np.testing.assert_allclose(coverages, [0.25, 0.5, 0.75, 1])
    assert risks.mean() == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_among_equally_sure_images_the_risk_is_the_mean_over_their_orders() -> None:
    wrong, sure = np.array([0.0, 1, 1, 0]), np.array([0.9, 0.8, 0.8, 0.8])
    orders = [[0, *order] for order in permutations([1, 2, 3])]
    expected = np.mean([np.cumsum(wrong[order]) / [1, 2, 3, 4] for order in orders], axis=0)
    np.testing.assert_allclose(risk_coverage(wrong, sure)[1], expected)


# Figures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_classes", "num_bins"), [(2, 15), (10, 15), (10, 7)])
def test_the_error_in_the_title_is_that_of_torchmetrics(num_classes: int, num_bins: int) -> None:
    targets, probabilities = predictions(num_classes)
    scaled = at_temperature(probabilities, 1.7)
    figure = reliability_diagram(targets, probabilities, scaled, num_bins)
    for axes, each in zip(figure.axes[:2], (probabilities, scaled), strict=True):
        expected = multiclass_calibration_error(
            torch.tensor(each), torch.tensor(targets), num_classes, n_bins=num_bins
        )
        title = axes.get_title(loc="left")
        assert float(title.split()[-1]) == pytest.approx(float(expected), abs=5.1e-5)


def test_reliability_bars_are_the_accuracies_and_shares_of_their_bins() -> None:
    probabilities = np.array([[0.95, 0.05], [0.05, 0.95], [1.0, 0.0], [0.55, 0.45], [0.65, 0.35]])
    figure = reliability_diagram(np.array([0, 0, 0, 1, 0]), probabilities, num_bins=5)
    top, bottom = figure.axes
    bars = [(bar.get_x(), bar.get_height()) for bar in top.containers[0]]
    np.testing.assert_allclose(bars, [(0.4, 0), (0.6, 1), (0.8, 2 / 3)])
    histogram = [(bar.get_x(), bar.get_height()) for bar in bottom.containers[0]]
    np.testing.assert_allclose(histogram, [(0.4, 0.2), (0.6, 0.2), (0.8, 0.6)])
    mean_confidences = [bar.get_y() + bar.get_height() for bar in top.containers[1]]
    np.testing.assert_allclose(mean_confidences, [0.55, 0.65, 2.9 / 3])


def test_the_drawn_risks_end_at_the_error_and_stay_above_the_best() -> None:
    targets, probabilities = predictions(10, 5000)
    figure = risk_coverage_curve(targets, probabilities, probabilities)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    curve, best = (line.get_ydata() for line in axes.lines[:2])
    error = 1 - sk.accuracy_score(targets, probabilities.argmax(1))
    assert curve[-1] == pytest.approx(error)
    assert best[-1] == pytest.approx(error)
    assert (curve >= best - 1e-12).all()
    assert f"{error:.2%}" in [text.get_text() for text in axes.texts]


def test_a_network_without_mistakes_is_drawn_too() -> None:
    FigureCanvasAgg(risk_coverage_curve(np.array([0, 1]), np.eye(2), np.eye(2))).draw()


# A run ------------------------------------------------------------------------------------------


def test_a_run_records_what_its_stored_predictions_give(trained_run) -> None:
    validation, test = (read_outcome(trained_run, split) for split in ("val", "test"))
    expected = judge(
        test.targets,
        test.probabilities,
        fit_temperatures(validation.targets, validation.probabilities),
        test.ranking,
    )
    assert set(expected.metrics) == {f"calibration/{name}" for name in CALIBRATION_METRICS}
    for name, value in expected.metrics.items():
        assert trained_run.metrics[name] == pytest.approx(value, abs=1e-6), name
    found = errors(test.targets, test.probabilities)
    assert trained_run.metrics["test/ece"] == pytest.approx(found["ece"], abs=1e-6)
    assert trained_run.metrics["test/log_loss"] == pytest.approx(found["log_loss"], abs=1e-6)


def test_evaluate_tells_it_again(trained, trained_run, darkroom) -> None:
    answer = darkroom("evaluate", trained)
    assert answer.status == 0, answer.errors
    rows = re.findall(r"│ (calibration/\w+)\s+│\s+([\d.]+) │\s+([\d.]+) │", answer.output)
    assert {name for name, *_ in rows} == {f"calibration/{name}" for name in CALIBRATION_METRICS}
    for name, recorded, now in rows:
        assert recorded == now == f"{trained_run.metrics[name]:.6f}"
