"""Every metric is scikit-learn's, on the same predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics import Metric

from darkroom.lightning_modules.metrics.collection import (
    CalibrationError,
    LabelCalibrationError,
    build_metrics,
    rank_scores,
)
from darkroom.lightning_modules.metrics.names import METRIC_NAMES, TOP5_MIN_CLASSES
from darkroom.lightning_modules.predictor import WeightedMean
from darkroom.lightning_modules.task import build_task, to_log_odds

CASES = [
    pytest.param(num_classes, skew, tied, id=f"{num_classes}-{skew}-{'tied' if tied else 'distinct'}")
    for num_classes in (2, 3, 12)
    for skew in ("balanced", "imbalanced")
    for tied in (False, True)
]


def predictions(num_classes: int, skew: str, tied: bool, count: int = 700) -> tuple[Tensor, Tensor]:
    """Probabilities better than chance, with certainties (0 and 1) among them."""
    rng = np.random.default_rng(num_classes)
    shares = np.full(num_classes, 1 / num_classes)
    if skew == "imbalanced":
        shares = 0.75 ** np.arange(num_classes)
        shares /= shares.sum()
    targets = rng.choice(num_classes, count, p=shares)
    assert len(np.unique(targets)) == num_classes
    logits = rng.normal(size=(count, num_classes)) * 2
    logits[np.arange(count), targets] += 1.5
    if tied:  # each image gets one of 25 rows, so that many share every score
        logits = logits[rng.integers(25, size=count)]
    probabilities = torch.from_numpy(logits).float().softmax(1)
    certain = torch.zeros(num_classes)
    certain[num_classes // 2] = 1
    probabilities[:40] = certain
    return probabilities, torch.from_numpy(targets)


def computed(probabilities: Tensor, targets: Tensor, chunks: int = 3) -> dict[str, float]:
    collection = build_metrics(probabilities.shape[1])
    for rows, labels in zip(probabilities.chunk(chunks), targets.chunk(chunks), strict=True):
        collection.update(rows, labels)
    return {name: float(value) for name, value in collection.compute().items()}


def ece_by_hand(probabilities: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """Guo et al. 2017, equation 3: |accuracy - confidence| in 15 equal bins, weighed by their sizes."""
    confidences = probabilities.max(1).astype(np.float64)
    hits = probabilities.argmax(1) == targets
    error = 0.0
    for lower in range(15):
        upper = (lower + 1) / 15
        inside = (confidences >= lower / 15) & ((confidences < upper) | (lower == 14))
        if inside.any():
            error += inside.mean() * abs(hits[inside].mean() - confidences[inside].mean())
    return float(error)


def by_sklearn(probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    scores, truth = probabilities.numpy(), targets.numpy()
    guesses, labels = scores.argmax(1), list(range(scores.shape[1]))
    binary = scores.shape[1] == 2
    one_hot = np.eye(len(labels))[truth]
    expected = {
        "accuracy": sk.accuracy_score(truth, guesses),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guesses),
        "precision_macro": sk.precision_score(truth, guesses, average="macro", zero_division=0),
        "recall_macro": sk.recall_score(truth, guesses, average="macro", zero_division=0),
        "f1_macro": sk.f1_score(truth, guesses, average="macro", zero_division=0),
        "f1_weighted": sk.f1_score(truth, guesses, average="weighted", zero_division=0),
        "log_loss": sk.log_loss(truth, scores, labels=labels),
        "auroc": sk.roc_auc_score(truth, scores[:, 1])
        if binary
        else sk.roc_auc_score(truth, scores, multi_class="ovr", average="macro", labels=labels),
        "average_precision": sk.average_precision_score(truth, scores[:, 1])
        if binary
        else sk.average_precision_score(one_hot, scores, average="macro"),
        "ece": ece_by_hand(scores, truth),
    }
    if len(labels) >= TOP5_MIN_CLASSES:
        expected["accuracy_top5"] = sk.top_k_accuracy_score(truth, scores, k=5, labels=labels)
    return expected


@pytest.mark.parametrize(("num_classes", "skew", "tied"), CASES)
def test_each_metric_is_scikit_learns(num_classes: int, skew: str, tied: bool) -> None:
    probabilities, targets = predictions(num_classes, skew, tied)
    if num_classes >= TOP5_MIN_CLASSES:  # which of equal probabilities are in the top five is arbitrary
        probabilities[:40] = probabilities[40:80]
    assert computed(probabilities, targets) == pytest.approx(by_sklearn(probabilities, targets), abs=2e-6)


def test_the_names_are_those_that_recipes_may_monitor() -> None:
    for num_classes in (2, 10, 11):
        probabilities = torch.full((20, num_classes), 1 / num_classes)
        names = {"loss", *computed(probabilities, torch.arange(20) % num_classes)}
        assert names == set(build_task(num_classes).metric_names) <= set(METRIC_NAMES)


def test_how_predictions_come_in_batches_does_not_matter() -> None:
    probabilities, targets = predictions(3, "imbalanced", True)
    assert computed(probabilities, targets, 1) == pytest.approx(
        computed(probabilities, targets, 70), abs=1e-6
    )


def test_a_reset_collection_has_forgotten_everything() -> None:
    collection = build_metrics(3)
    collection.update(*predictions(3, "balanced", False))
    collection.compute()
    collection.reset()
    probabilities, targets = predictions(3, "imbalanced", True, count=90)
    collection.update(probabilities, targets)
    values = {name: float(value) for name, value in collection.compute().items()}
    assert values == pytest.approx(computed(probabilities, targets))


def test_a_class_absent_from_targets_is_treated_as_scikit_learn_treats_it() -> None:
    probabilities, targets = predictions(4, "balanced", False)
    present = targets != 2
    probabilities, targets = probabilities[present], targets[present]
    assert (probabilities.argmax(1) == 2).any()  # absent, yet predicted
    with warnings.catch_warnings():  # scikit-learn's about the absent class
        warnings.simplefilter("ignore")
        expected = by_sklearn(probabilities, targets)
    values = computed(probabilities, targets)
    assert expected["balanced_accuracy"] > expected["recall_macro"]

    # Ranking leaves the class out of the mean, where scikit-learn has NaN or 0.
    rest = [0, 1, 3]
    truth, scores = targets.numpy(), probabilities.numpy()
    one_vs_rest = [(truth == label, scores[:, label]) for label in rest]
    expected["auroc"] = np.mean([sk.roc_auc_score(*pair) for pair in one_vs_rest])
    expected["average_precision"] = np.mean([sk.average_precision_score(*pair) for pair in one_vs_rest])
    assert values == pytest.approx(expected, abs=2e-6)


def test_certainty_in_the_wrong_class_costs_a_finite_log_loss() -> None:
    probabilities, targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1])
    expected = sk.log_loss(targets.numpy(), probabilities.numpy(), labels=[0, 1])
    assert computed(probabilities, targets, 1)["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(-np.log(np.finfo(np.float32).eps) / 2, rel=1e-5)


def test_full_certainty_shares_the_last_bin_of_the_calibration_error() -> None:
    # Both in (14/15, 1]: accuracy 1/2 against a confidence of 0.975 on average.
    probabilities, targets = torch.tensor([[1.0, 0.0], [0.95, 0.05]]), torch.tensor([1, 0])
    assert computed(probabilities, targets, 1)["ece"] == pytest.approx(0.475, abs=1e-6)


# Ranking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng, count: rng.random(count), id="distinct"),
        pytest.param(lambda rng, count: rng.integers(0, 4, count) / 4, id="four values"),
        pytest.param(lambda rng, count: np.full(count, 0.5), id="one value"),
        pytest.param(lambda rng, count: (rng.random(count) < 0.5).astype(float), id="saturated"),
    ],
)
def test_areas_are_scikit_learns_whatever_the_ties(
    draw: Callable[[np.random.Generator, int], NDArray[np.float64]],
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(2, 60))
        scores = draw(rng, count).astype(np.float32)
        positives = rng.random(count) < rng.uniform(0.1, 0.9)
        positives[rng.permutation(count)[:2]] = [True, False]  # one of each at least
        area, precision = rank_scores(torch.from_numpy(scores), torch.from_numpy(positives))
        assert area.item() == pytest.approx(sk.roc_auc_score(positives, scores), abs=1e-6)
        assert precision.item() == pytest.approx(sk.average_precision_score(positives, scores), abs=1e-6)


def test_perfect_and_reversed_orders_have_their_known_areas() -> None:
    positives = torch.tensor([True, True, False, False])
    assert [value.item() for value in rank_scores(torch.tensor([4.0, 3, 2, 1]), positives)] == [1, 1]
    area, precision = rank_scores(torch.tensor([1.0, 2, 3, 4]), positives)
    assert (area.item(), precision.item()) == (0, pytest.approx((1 / 3 + 2 / 4) / 2))


@pytest.mark.parametrize("positives", [[], [True, True], [False, False]])
def test_without_positives_or_negatives_there_is_no_area(positives: list[bool]) -> None:
    area, precision = rank_scores(torch.rand(len(positives)), torch.tensor(positives, dtype=torch.bool))
    assert area.isnan()
    assert precision.isnan()


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_calibration_error_of_a_million_images_is_that_of_double_precision(multilabel) -> None:
    rng = np.random.default_rng(0)
    confident = rng.beta(20, 1, 1_000_000).astype(np.float32)
    hits = rng.random(1_000_000) < confident - 0.03
    if multilabel:
        probabilities = torch.from_numpy(confident)[:, None]
        targets = torch.from_numpy(hits)[:, None].float()
        metric: Metric = LabelCalibrationError()
    else:
        probabilities = torch.from_numpy(np.stack([1 - confident, confident], 1))
        targets = torch.from_numpy(np.where(confident > 0.5, hits, ~hits).astype(np.int64))
        metric = CalibrationError()
    metric.update(probabilities, targets)
    if multilabel:
        edges = np.linspace(0, 1, 16)
        bins = np.clip(np.digitize(confident.astype(np.float64), edges) - 1, 0, 14)
        gaps = np.bincount(bins, hits - confident.astype(np.float64), minlength=15)
        expected = np.abs(gaps).sum() / len(hits)
    else:
        expected = ece_by_hand(probabilities.numpy(), targets.numpy())
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


def exact_log_odds(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class against the others, worked in long doubles, one class at a time."""
    exact = logits.astype(np.longdouble)
    columns = []
    for label in range(logits.shape[1]):
        others = np.delete(exact, label, axis=1)
        largest = others.max(1)
        columns.append(exact[:, label] - largest - np.log(np.exp(others - largest[:, None]).sum(1)))
    return np.stack(columns, 1).astype(np.float64)


@pytest.mark.parametrize("num_classes", [2, 3, 12])
@pytest.mark.parametrize("scale", [1, 30, 300])
def test_log_odds_are_exact_where_probabilities_are_rounded_to_0_and_1(num_classes, scale) -> None:
    logits = np.random.default_rng(0).normal(size=(500, num_classes)) * scale
    logits[:20] = logits[:20].round()  # ties
    found = to_log_odds(torch.from_numpy(logits).float())
    expected = exact_log_odds(logits.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-7, atol=1e-6)
    single = to_log_odds(torch.from_numpy(logits[:, :1]).float())
    np.testing.assert_array_equal(
        single.numpy(), np.hstack([-logits[:, :1], logits[:, :1]]).astype(np.float32)
    )


@pytest.mark.parametrize("num_classes", [2, 12])
def test_ranking_metrics_of_a_sure_network_are_scikit_learns_in_double_precision(num_classes) -> None:
    """Logits of 40 and more, of which float32 probabilities are 0 and 1."""
    rng = np.random.default_rng(1)
    targets = np.arange(600) % num_classes
    logits = rng.normal(size=(600, num_classes)) * 3
    logits[np.arange(600), targets] += 2
    logits = torch.from_numpy(logits * 60).float()
    task = build_task(num_classes)
    given = logits[:, 1:] - logits[:, :1] if num_classes == 2 else logits
    probabilities, log_odds = task.probabilities(given), task.log_odds(given)
    collection = build_metrics(num_classes)
    collection.update(probabilities, torch.from_numpy(targets), ranking=log_odds)
    values = {name: float(value) for name, value in collection.compute().items()}
    scores = exact_log_odds(logits.double().numpy())
    classes = [1] if num_classes == 2 else range(num_classes)
    areas = [sk.roc_auc_score(targets == label, scores[:, label]) for label in classes]
    precisions = [sk.average_precision_score(targets == label, scores[:, label]) for label in classes]
    assert values["auroc"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert values["average_precision"] == pytest.approx(np.mean(precisions), abs=1e-6)
    rounded = [sk.roc_auc_score(targets == label, probabilities[:, label]) for label in classes]
    assert abs(np.mean(rounded) - np.mean(areas)) > 0.001  # what is not to be recorded
    if num_classes > 10:
        expected = sk.top_k_accuracy_score(targets, logits.double().numpy(), k=5)
        assert values["accuracy_top5"] == pytest.approx(expected, abs=1e-6)


def test_a_mean_of_sure_members_ranks_as_the_mean_of_their_exact_probabilities() -> None:
    members = torch.randn(400, 3, 4, generator=torch.Generator().manual_seed(0)).mul(40)  # log odds
    weights = [0.5, 0.3, 0.2]
    found = WeightedMean(weights).log_odds(members.sigmoid(), members)
    exact = members.double().numpy().astype(np.longdouble)
    share = np.array(weights, dtype=np.longdouble)[:, None]
    present = (share / (1 + np.exp(-exact))).sum(1)
    absent = (share / (1 + np.exp(exact))).sum(1)
    np.testing.assert_allclose(
        found.numpy(), np.log(present / absent).astype(np.float64), rtol=1e-6, atol=1e-6
    )
