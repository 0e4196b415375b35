"""A slice that is truly worse is named first, and chance names none; numbers are those of others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks import error_rates
from sklearn import metrics as sk

from darkroom.experiments.analysis.slices.slice_metrics import MIN_IMAGES, judge_slice, judge_slices
from darkroom.experiments.analysis.slices.slicing import Slice, by_class
from darkroom.experiments.analysis.slices.tables import SliceFindings, to_frame, to_markdown
from darkroom.experiments.evaluation.stored_predictions import StoredPredictions


def outcome_of(right: np.ndarray, num_classes: int = 4, seed: int = 0) -> StoredPredictions:
    """Predictions of N images that are right where `right` (N,) says so, else of the next class."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, num_classes, len(right))
    predicted = np.where(right, targets, (targets + 1) % num_classes)
    probabilities = np.full((len(right), num_classes), 0.1 / num_classes, np.float32)
    probabilities[np.arange(len(right)), predicted] += 0.9
    return StoredPredictions(np.arange(len(right)).astype(str), targets, probabilities)


def sites(values: np.ndarray) -> list[Slice]:
    return [Slice("site", str(value), values == value) for value in np.unique(values)]


@pytest.mark.parametrize("seed", range(5))
def test_the_slice_that_is_truly_worse_is_named_first(seed: int) -> None:
    random = np.random.default_rng(seed)
    site = random.integers(0, 6, 2400)
    right = random.random(2400) < np.where(site == 3, 0.78, 0.92)
    judged = judge_slices(outcome_of(right), sites(site))
    assert (judged[0].name, judged[0].verdict) == ("3", "worse")
    assert all(each.verdict != "worse" for each in judged[1:])
    assert judged[0].gap_within.holds(0.78 - 0.92)
    assert judged[0].accuracy_within.holds(0.78)
    assert judged[0].p < 0.001


def test_chance_alone_seldom_makes_any_of_ten_slices_different() -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        site, right = random.integers(0, 10, 800), random.random(800) < 0.9
        p_values = [judge_slice(right, each).p for each in sites(site)]
        alarms += 10 * min(p_values) < 0.05  # Holm's least
    assert alarms <= 12  # of 5 that a test with exactly 0.05 has; Fisher's has fewer


def test_a_worse_but_small_slice_comes_last_and_is_not_judged() -> None:
    site = np.array(["a"] * 200 + ["b"] * 100 + ["c"] * (MIN_IMAGES - 1))
    right = site != "c"
    right[:40] = False
    judged = judge_slices(outcome_of(right), sites(site))
    assert [(each.name, each.verdict) for each in judged] == [
        ("a", "worse"),
        ("b", "better"),
        ("c", "too small"),
    ]
    assert math.isnan(judged[-1].gap)
    remarks = SliceFindings("", tuple(judged), ()).remarks()
    assert "site: a" in remarks[0]
    assert "site: c (9)" in remarks[1]


def test_a_slice_of_everything_is_left_out() -> None:
    assert judge_slices(outcome_of(np.ones(50, bool)), [Slice("site", "a", np.ones(50, bool))]) == []


def test_intervals_are_those_of_the_articles() -> None:
    # Newcombe 1998, table II, method 10: 56 of 70 against 48 of 80.
    right = np.array([True] * 56 + [False] * 14 + [True] * 48 + [False] * 32)
    judged = judge_slice(right, Slice("group", "one", np.arange(150) < 70))
    assert judged.gap == pytest.approx(0.2)
    assert judged.gap_within == pytest.approx((0.0524, 0.3339), abs=5e-5)
    # Wilson's score interval of 81 of 263 (Newcombe 1998, Statistics in Medicine 17:857).
    right = np.arange(400) < 81
    judged = judge_slice(right, Slice("group", "one", np.arange(400) < 263))
    assert judged.accuracy_within == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_f1_is_scikit_learns_and_lies_within_its_interval() -> None:
    random = np.random.default_rng(0)
    outcome = outcome_of(random.random(600) < 0.8)
    predicted = outcome.probabilities.argmax(1)
    site = random.integers(0, 2, 600)
    judged = judge_slices(outcome, [*sites(site), *by_class(outcome.targets, ["a", "b", "c", "d"])])
    by_name = {each.name: each for each in judged}
    for value in (0, 1):
        expected = sk.f1_score(outcome.targets[site == value], predicted[site == value], average="macro")
        assert by_name[str(value)].f1 == pytest.approx(expected)
    for name, expected in zip("abcd", sk.f1_score(outcome.targets, predicted, average=None), strict=True):
        assert by_name[name].f1 == pytest.approx(expected)
    for each in judged:
        assert each.f1_within.low < each.f1 < each.f1_within.high


@pytest.mark.parametrize(("images", "classes"), [(50, 10), (150, 10)])
def test_the_interval_of_f1_holds_the_truth_in_93_to_97_of_100_cases(images, classes) -> None:
    held = [error_rates.f1_coverage(250, images, classes, each) for each in error_rates.F1_ACCURACIES]
    assert 0.92 <= np.mean(held) <= 0.97
    assert min(held) >= 0.87  # 90 in 100, less what 250 cases vary


def test_of_several_labels_an_image_is_in_the_slice_of_each() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, (500, 3))
    probabilities = np.where(targets == 1, 0.8, 0.2).astype(np.float32)
    hard = random.random(500) < 0.3
    probabilities[:, 2] = np.where(hard & (targets[:, 2] == 1), 0.2, probabilities[:, 2])
    outcome = StoredPredictions(np.arange(500).astype(str), targets, probabilities)
    judged = judge_slices(outcome, by_class(targets, ["red", "white", "plate"]))
    assert (judged[0].name, judged[0].verdict) == ("plate", "worse")
    assert [each.size for each in sorted(judged, key=lambda each: each.name)] == [
        targets[:, label].sum() for label in (2, 0, 1)
    ]
    assert judged[0].f1 == pytest.approx(sk.f1_score(targets[:, 2], probabilities[:, 2] > 0.5))


def test_tables_hold_all_slices_with_their_numbers() -> None:
    site = np.array(["a|b"] * 50 + ["c"] * 50)
    right = (site == "c") | (np.arange(100) < 25)
    findings = SliceFindings("run", tuple(judge_slices(outcome_of(right), sites(site))), ("a note",))
    text = to_markdown(findings)
    assert r"| site: a\|b | 50 | 50.0 [36.6, 63.4] |" in text
    assert "- a note" in text
    frame = to_frame(findings)
    assert frame["slice"].tolist() == ["a|b", "c"]
    assert frame["accuracy"].tolist() == [0.5, 1.0]
    assert frame["gap"].tolist() == [-0.5, 0.5]
