"""Bootstrapped metrics are the very ones that runs record."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from darkroom.experiments.analysis.compare.curves import FALSE_RATES, agreement, class_scores, roc_curve
from darkroom.experiments.analysis.compare.groups import ComparedRun, Group, read_member
from darkroom.experiments.evaluation.bootstrap import (
    image_scores,
    measure,
    replicates,
    strata_of,
    unit_scores,
)
from darkroom.experiments.evaluation.significance import resamples
from darkroom.experiments.evaluation.stored_predictions import StoredPredictions
from darkroom.experiments.tracking.prediction_artifacts import read_outcome
from darkroom.lightning_modules.metrics.names import CLASS_METRICS
from darkroom.lightning_modules.task import build_task


def make_outcome(task: str, seed: int = 0) -> StoredPredictions:
    generator = np.random.default_rng(seed)
    num_images, num_classes = 90, 2 if task == "binary" else 4
    ids = np.array([f"{number:03}" for number in range(num_images)])
    logits = generator.normal(size=(num_images, num_classes))
    if task == "multilabel":
        targets = (np.random.default_rng(9).random((num_images, num_classes)) < 0.4).astype(np.int64)
        probabilities = 1 / (1 + np.exp(-logits - targets))
    else:
        targets = np.arange(num_images) % num_classes
        logits[np.arange(num_images), targets] += 1
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return StoredPredictions(ids, targets, probabilities.astype(np.float32))


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_each_metric_is_that_of_the_collection_a_run_records(task):
    outcome = make_outcome(task)
    kind = build_task(outcome.probabilities.shape[1], outcome.task)
    assert kind.name == task
    recorded = kind.metrics()(torch.from_numpy(outcome.probabilities), torch.from_numpy(outcome.targets))
    compared = 0
    for name in kind.metric_names:
        if name == "loss":
            continue
        value = measure(outcome, name)
        assert value is not None
        assert value(outcome, np.arange(90)) == pytest.approx(float(recorded[name]), abs=1e-6), name
        scores = image_scores(outcome, name)
        if scores is not None:
            assert scores.mean() == pytest.approx(float(recorded[name]), abs=1e-6), name
        compared += 1
    assert compared >= 9


def test_scores_of_units_are_image_scores_or_jackknife_pseudo_values():
    outcomes = [make_outcome("multiclass", seed) for seed in (0, 1)]
    right = np.stack([outcome.right() for outcome in outcomes], axis=1)
    np.testing.assert_array_equal(unit_scores(outcomes, "accuracy"), right)
    scores = unit_scores(outcomes, "f1_macro")
    assert scores.shape == (90, 2)
    for column, outcome in zip(scores.T, outcomes, strict=True):
        predicted = outcome.probabilities.argmax(1)

        def f1(kept, targets=outcome.targets, predicted=predicted):
            return sk.f1_score(targets[kept], predicted[kept], average="macro")

        whole = f1(np.arange(90))
        pseudo = [90 * whole - 89 * f1(np.delete(np.arange(90), left_out)) for left_out in range(90)]
        assert column.mean() == pytest.approx(whole, abs=1e-6)
        # As they are told apart by a random order, their spread is held against the jackknife's.
        assert np.sort(column) == pytest.approx(np.sort(pseudo - np.mean(pseudo) + whole), abs=1e-3)


def test_the_jackknifes_error_of_auroc_is_delongs():
    outcome = make_outcome("binary")
    scores = unit_scores([outcome], "auroc")
    positive = outcome.probabilities[outcome.targets == 1, 1]
    negative = outcome.probabilities[outcome.targets == 0, 1]
    wins = (positive[:, None] > negative).astype(float)  # no ties
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    assert scores[:, 0].var(ddof=1) / 90 == pytest.approx(variance, rel=0.05)


def test_scores_of_groups_of_images_have_the_variance_of_a_mean_of_clusters():
    outcome = make_outcome("multiclass")
    units = {
        name: str(number // 4) for number, name in enumerate(outcome.ids.tolist())
    }  # the last is smaller
    right = outcome.right().astype(float)
    scores = unit_scores([outcome], "accuracy", units)
    sums = np.bincount(np.arange(90) // 4, right - right.mean())
    assert scores.mean() == pytest.approx(right.mean())
    sizes = np.bincount(np.arange(90) // 4)
    expected = (np.square(sums) / (1 - sizes / 90)).sum() / 90**2  # CR2 (Bell and McCaffrey 2002)
    assert scores.var(ddof=1) / 23 == pytest.approx(
        expected, rel=1e-4
    )  # rows keep the mean, which costs that
    assert unit_scores([outcome], "f1_macro", units).shape == (23, 1)


def test_of_many_images_random_groups_are_left_out():
    generator = np.random.default_rng(0)
    targets = generator.integers(4, size=1000)
    probabilities = np.eye(4, dtype=np.float32)[np.where(generator.random(1000) < 0.9, targets, 0)]
    outcome = StoredPredictions(np.arange(1000).astype(str), targets, probabilities)
    scores = unit_scores([outcome], "balanced_accuracy")
    assert scores.shape == (200, 1)
    accuracy = unit_scores([outcome], "accuracy").std(ddof=1) / np.sqrt(1000)
    assert scores.std(ddof=1) / np.sqrt(200) == pytest.approx(accuracy, rel=0.3)


def test_what_predictions_do_not_tell_is_not_bootstrapped():
    outcome = make_outcome("multilabel")
    assert unit_scores([outcome], "f1_macro_tuned") is None
    assert replicates([outcome], "loss") is None
    assert replicates([outcome], "f1_macro_tuned") is None


def test_replicates_of_a_ratio_are_scikit_learns_on_the_same_resamples():
    outcomes = [make_outcome("multiclass", seed) for seed in (0, 1)]
    drawn = replicates(outcomes, "f1_macro", seed=3)
    counts = next(resamples(outcomes[0].targets, 500, seed=3)).astype(int)
    for row in (0, 7):
        places = np.repeat(np.arange(90), counts[row])
        for column, outcome in enumerate(outcomes):
            predicted = outcome.probabilities[places].argmax(1)
            expected = sk.f1_score(outcome.targets[places], predicted, average="macro")
            assert drawn[row, column] == pytest.approx(expected, abs=1e-6)


def test_replicates_of_a_mean_are_the_metric_on_the_same_resamples():
    outcome = make_outcome("multiclass")
    drawn = replicates([outcome], "accuracy", seed=3)
    value = measure(outcome, "accuracy")
    for row, counts in enumerate(next(resamples(outcome.targets, 5, seed=3)).astype(int)):
        assert drawn[row, 0] == pytest.approx(value(outcome, np.repeat(np.arange(90), counts)), abs=1e-6)


def test_runs_that_judged_images_of_their_own_see_only_those():
    whole = make_outcome("multiclass")
    halves = [
        StoredPredictions(whole.ids[part], whole.targets[part], whole.probabilities[part])
        for part in (slice(0, 45), slice(45, 90))
    ]
    for metric in ("accuracy", "f1_macro"):
        means = replicates(halves, metric).mean(0)
        for half, mean in zip(halves, means, strict=True):
            assert mean == pytest.approx(measure(half, metric)(half, np.arange(45)), abs=0.03)


def test_rare_sets_of_labels_are_one_stratum():
    outcome = make_outcome("multilabel")
    strata = strata_of([outcome], outcome.ids, [np.arange(90)])
    sizes = {stratum: int((strata == stratum).sum()) for stratum in set(strata.tolist()) - {-1}}
    assert min(sizes.values()) >= 5
    for stratum in sizes:
        assert len(np.unique(outcome.targets[strata == stratum], axis=0)) == 1


def test_what_is_read_back_of_a_trained_run_gives_its_recorded_metrics(trained_store):
    run = trained_store.runs_of("digits/cnn")[0]
    outcome = read_outcome(run, "test")
    for name in CLASS_METRICS:
        if name not in ("loss", "accuracy_top5"):
            value = measure(outcome, name)(outcome, np.arange(len(outcome.ids)))
            assert value == pytest.approx(run.metrics[f"test/{name}"], abs=1e-6), name


def test_the_time_of_a_run_is_that_of_its_epochs(trained_store):
    run = trained_store.runs_of("digits/cnn")[0]
    member = read_member(run, "test", "accuracy")
    epochs = [run.history()[epoch]["epoch_seconds"] for epoch in (1, 2)]
    assert member.seconds == pytest.approx(sum(epochs))
    assert member.images_per_second == pytest.approx(1286 / np.median(epochs))


def test_the_roc_curve_has_the_area_of_scikit_learns():
    outcome = make_outcome("multiclass")
    heights = roc_curve(outcome)
    area = np.trapezoid(heights, FALSE_RATES)
    each = [sk.roc_auc_score(outcome.targets == label, outcome.probabilities[:, label]) for label in range(4)]
    expected = np.mean(each)
    assert area == pytest.approx(expected, abs=0.01)


def make_group(name: str, outcomes: list[StoredPredictions]) -> Group:
    members = tuple(ComparedRun(None, each, 0.0, ("a", "b", "c", "d"), {}, {}) for each in outcomes)
    return Group(name, members, {})


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_scores_by_class_are_scikit_learns(task):
    outcomes = [make_outcome(task, seed) for seed in (0, 1)]
    scores = class_scores([make_group("A", outcomes)])
    expected = [
        sk.f1_score(
            each.targets,
            each.probabilities.argmax(1) if task == "multiclass" else each.probabilities > 0.5,
            average=None,
        )
        for each in outcomes
    ]
    np.testing.assert_allclose(scores[:, 0], np.mean(expected, axis=0))


def test_mistakes_in_common_are_those_of_each_two_runs(monkeypatch):
    one = make_group("A", [make_outcome("multiclass", seed) for seed in (0, 1, 2)])
    other = make_group("B", [make_outcome("multiclass", 5)])
    for group in (one, other):  # folds are asked of the run, which these lack
        monkeypatch.setattr(type(group), "folds", None)
    wrong = [1 - member.outcome.right() for member in (*one.members, *other.members)]
    shares = agreement([one, other])
    mistakes = sum(each.sum() for each in wrong[:3])
    assert shares[0, 1] == pytest.approx(sum(each @ wrong[3] for each in wrong[:3]) / mistakes)
    pairs = [wrong[i] @ wrong[j] for i in range(3) for j in range(3) if i != j]
    assert shares[0, 0] == pytest.approx(sum(pairs) / (2 * mistakes))
    assert np.isnan(shares[1, 1])
