"""Intervals over groups of images hold what they are to hold, and errors are those of others' estimators."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import linalg

from darkroom.experiments.analysis.slices.slice_metrics import judge_slices
from darkroom.experiments.analysis.slices.slicing import Slice
from darkroom.experiments.evaluation.bootstrap import replicates, unit_scores
from darkroom.experiments.evaluation.clustered import (
    MIN_GROUPS,
    Groups,
    gap_between,
    group_of_image,
    grouped_share_interval,
    linearized,
    share_of_groups,
    unrecorded_groups,
)
from darkroom.experiments.evaluation.proportions import share_interval
from darkroom.experiments.evaluation.stored_predictions import StoredPredictions
from darkroom.experiments.evaluation.two_way_test import difference_p_value

ACCURACIES = (0.6, 0.8, 0.9, 0.95, 0.98, 0.99)


def draw_sizes(num_groups: int, kind: str, mean: int, generator: np.random.Generator) -> np.ndarray:
    """Equal sizes, or such of which a few are several times as large as most."""
    if kind == "equal":
        return np.full(num_groups, mean)
    sizes = np.exp(generator.normal(0, 1, num_groups))
    return np.maximum(1, np.round(sizes / sizes.mean() * mean)).astype(int)


def draw_rates(
    accuracy: float, icc: float, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """Accuracies of groups: beta-distributed, so that images of one group correlate by `icc`."""
    if icc == 0:
        return np.full(shape, accuracy)
    scale = (1 - icc) / icc
    return generator.beta(accuracy * scale, (1 - accuracy) * scale, shape)


def coverage(
    num_groups: int,
    kind: str,
    icc: float,
    mean: int,
    repeats: int,
    accuracies: tuple[float, ...] = ACCURACIES,
) -> list[float]:
    """How often the interval of accuracy holds the true one, at each of several true ones."""
    generator = np.random.default_rng(num_groups)
    found = []
    for accuracy in ACCURACIES:
        held = 0
        for _ in range(repeats):
            sizes = draw_sizes(num_groups, kind, mean, generator)
            groups = Groups.of(np.repeat(np.arange(num_groups), sizes))
            rates = draw_rates(accuracy, icc, (num_groups,), generator)
            right = (generator.random(sizes.sum()) < np.repeat(rates, sizes)).astype(float)
            held += grouped_share_interval(right, groups).holds(accuracy)
        found.append(held / repeats)
    return found


# Against others' estimators -----------------------------------------------------------------------


def test_of_equal_groups_the_error_is_statsmodels_cluster_robust_one() -> None:
    generator = np.random.default_rng(0)
    names = np.repeat(np.arange(12), 7)
    right = (generator.random(84) < draw_rates(0.8, 0.4, (12,), generator)[names]).astype(float)
    fitted = sm.OLS(right, np.ones(84)).fit(cov_type="cluster", cov_kwds={"groups": names})
    share = share_of_groups(right, Groups.of(names))
    assert np.sqrt(share.changes @ share.changes) == pytest.approx(float(fitted.bse[0]))
    rows = linearized(right, names, 12)
    assert rows.mean() == pytest.approx(right.mean())
    assert rows.std(ddof=1) / np.sqrt(12) == pytest.approx(float(fitted.bse[0]))


def test_of_unequal_groups_error_and_freedom_are_those_of_bell_and_mccaffreys_matrices() -> None:
    generator = np.random.default_rng(1)
    sizes = np.array([1, 2, 3, 5, 8, 13])
    names, total = np.repeat(np.arange(6), sizes), int(sizes.sum())
    right = (generator.random(total) < 0.6).astype(float)
    rest = np.eye(total) - np.full((total, total), 1 / total)  # residuals of the mean
    vectors = []
    for group in range(6):
        own = names == group
        root = np.real(linalg.sqrtm(np.linalg.inv(rest[np.ix_(own, own)])))
        vectors.append((root @ np.ones(own.sum())) @ rest[own] / total)
    basis = np.array(vectors)  # (G, N): what each group adds, of the scores
    share = share_of_groups(right, Groups.of(names))
    np.testing.assert_allclose(share.changes, basis @ right, atol=1e-12)
    gram = basis @ basis.T
    expected = np.trace(gram) ** 2 / np.trace(gram @ gram)
    assert Groups.of(names).freedom == pytest.approx(expected)


def test_groups_of_one_image_give_nearly_wilsons_interval() -> None:
    right = np.arange(400) >= 23
    ours = grouped_share_interval(right.astype(float), Groups.of(np.arange(400)))
    assert ours == pytest.approx(share_interval(right.astype(float)), abs=0.004)


# By simulation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["equal", "unequal"])
@pytest.mark.parametrize("num_groups", [5, 10, 40])
def test_intervals_hold_the_true_accuracy(num_groups: int, kind: str) -> None:
    for icc in (0.0, 0.3, 0.6):
        found = coverage(num_groups, kind, icc, mean=10, repeats=150)
        assert min(found) > 0.88  # 0.90 but for the error of 150 draws
        assert np.mean(found) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["equal", "unequal"])
@pytest.mark.parametrize("mean", [3, 10, 40])
@pytest.mark.parametrize("num_groups", [5, 10, 20, 40, 100])
def test_the_whole_grid_of_coverage(num_groups: int, mean: int, kind: str) -> None:
    for icc in (0.0, 0.1, 0.3, 0.6):
        found = coverage(num_groups, kind, icc, mean, repeats=1500)
        print(
            f"{kind} {num_groups} groups of {mean}, ICC {icc}: {np.mean(found):.3f}, least {min(found):.3f}"
        )
        assert min(found) > 0.89
        assert np.mean(found) > 0.925


@pytest.mark.parametrize("kind", ["equal", "unequal"])
def test_equal_models_are_seldom_told_apart(kind: str) -> None:
    generator = np.random.default_rng(2)
    rejected = []
    for num_groups in (5, 10, 40):
        for icc in (0.0, 0.3, 0.6):
            for _ in range(150):
                sizes = draw_sizes(num_groups, kind, 10, generator)
                groups = Groups.of(np.repeat(np.arange(num_groups), sizes))
                rates = draw_rates(0.85, icc, (2, num_groups), generator)
                one, other = generator.random((2, sizes.sum())) < np.repeat(rates, sizes, axis=1)
                rows = linearized(one.astype(float) - other, groups.places, num_groups)
                rejected.append(difference_p_value(rows, groups.freedom) < 0.05)
    assert np.mean(rejected) < 0.06


def test_slices_of_equal_accuracy_are_seldom_called_different() -> None:
    generator = np.random.default_rng(3)
    for whole in (True, False):
        p_values = []
        for _ in range(300):
            names = np.repeat(np.arange(30), 10)
            right = (generator.random(300) < draw_rates(0.85, 0.3, (30,), generator)[names]).astype(float)
            members = names < 10 if whole else generator.random(300) < 0.3
            gap = gap_between(right, Groups.of(names), members)
            p_values.append(gap.p)
        assert np.mean(np.array(p_values) < 0.05) < 0.08  # 0.05 but for the error of 300 draws


# Of what runs said --------------------------------------------------------------------------------


def tracks(num_tracks: int = 60, length: int = 20, icc: float = 0.12, seed: int = 0) -> StoredPredictions:
    """Predictions of traffic signs in tracks of one class each, of which some are harder than others."""
    generator = np.random.default_rng(seed)
    names = np.repeat(np.arange(num_tracks), length)
    targets = names % 3
    right = generator.random(len(names)) < draw_rates(0.85, icc, (num_tracks,), generator)[names]
    probabilities = np.full((len(names), 3), 0.1, np.float32)
    probabilities[np.arange(len(names)), np.where(right, targets, (targets + 1) % 3)] = 0.8
    ids = np.array([f"{number:05}" for number in range(len(names))])
    return StoredPredictions(ids, targets, probabilities, names.astype(np.str_), "track")


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_errors_are_as_much_wider_as_new_tracks_say(metric: str) -> None:
    def error(outcome: StoredPredictions, grouped: bool) -> float:
        rows = unit_scores([outcome], metric, group_of_image([outcome]) if grouped else None)
        assert rows is not None
        return float(rows.std(ddof=1) / np.sqrt(len(rows)))

    drawn = [tracks(seed=seed) for seed in range(12)]
    ratio = np.mean([error(each, True) for each in drawn]) / np.mean([error(each, False) for each in drawn])
    assert 1.6 < ratio < 2.0  # sqrt(1 + 19 x 0.12) = 1.81
    truth = np.std([tracks(seed=seed).right().mean() for seed in range(400)])
    if metric == "accuracy":
        assert np.mean([error(each, True) for each in drawn]) == pytest.approx(truth, rel=0.15)


def test_replicates_of_tracks_are_as_wide_as_students_interval_over_tracks() -> None:
    outcome = tracks()
    drawn = replicates([outcome], "accuracy")
    assert drawn is not None
    low, high = np.quantile(drawn[:, 0], [0.025, 0.975])
    rows = unit_scores([outcome], "accuracy", group_of_image([outcome]))
    assert rows is not None
    assert (high - low) / 2 == pytest.approx(2.0 * rows.std(ddof=1) / np.sqrt(60), rel=0.15)


def test_a_site_that_two_bad_patients_make_worse_is_not_called_worse() -> None:
    """Its images alone would say so."""
    names = np.repeat(np.arange(24), 20)
    right = ~np.isin(names, (0, 1)) | (np.arange(480) % 4 > 1)
    targets = np.arange(480) % 3
    probabilities = np.full((480, 3), 0.1, np.float32)
    probabilities[np.arange(480), np.where(right, targets, (targets + 1) % 3)] = 0.8
    ids = np.arange(480).astype(np.str_)
    site = Slice("site", "a", names < 8)
    (alone,) = judge_slices(StoredPredictions(ids, targets, probabilities), [site])
    (together,) = judge_slices(
        StoredPredictions(ids, targets, probabilities, names.astype(np.str_), "patient"), [site]
    )
    assert (alone.verdict, together.verdict) == ("worse", "cannot tell")
    assert together.gap == alone.gap
    assert together.gap_within.low < alone.gap_within.low
    assert together.f1_within.high - together.f1_within.low > alone.f1_within.high - alone.f1_within.low


def test_few_groups_give_no_interval_but_the_reason() -> None:
    names = np.repeat(np.arange(MIN_GROUPS - 1), 30)
    groups = Groups.of(names, "patient")
    assert grouped_share_interval(np.arange(120) % 5 > 0, groups) == (-np.inf, np.inf)
    assert np.isnan(gap_between((np.arange(120) % 5 > 0).astype(float), groups, names < 2).p)
    assert groups.told().startswith("no interval or test over images: there are 4 groups (patient)")


def test_groups_that_no_record_has_are_said_to_be_missing() -> None:
    outcome = tracks()
    lacking = StoredPredictions(outcome.ids, outcome.targets, outcome.probabilities, None, "track")
    assert unrecorded_groups([outcome]) is None
    assert unrecorded_groups([outcome, lacking]) is None  # the other one knows them
    assert "(track) that stand in no record" in str(unrecorded_groups([lacking]))
