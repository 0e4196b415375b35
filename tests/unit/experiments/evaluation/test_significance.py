"""Intervals hold what they promise in simulations; tests agree with scipy, statsmodels and R."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from darkroom.experiments.evaluation.significance import (
    Interval,
    bootstrap_means,
    cliques,
    equivalence,
    folds_interval,
    folds_p_value,
    holm,
    mcnemar,
    practical_difference,
    resamples,
    seeds_p_value,
    t_interval,
)

CASES = 2000
CLAIM = Interval(0.985, 0.995)
RANDOM = np.random.default_rng(0)


def test_the_interval_over_seeds_is_scipys():
    values = [0.91, 0.93, 0.92, 0.95]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high))
    assert t_interval([0.9]) == (-math.inf, math.inf)


def test_runs_that_tie_do_not_tell_how_much_seeds_vary():
    assert t_interval([0.95, 0.95]) == (-math.inf, math.inf)
    assert folds_interval([0.95] * 5, 1 / 4) == (-math.inf, math.inf)


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_the_interval_over_seeds_holds_the_truth_in_95_of_100_cases(num_seeds):
    cases = np.random.default_rng(num_seeds).normal(0.9, 0.01, (CASES, num_seeds))
    held = [t_interval(case).holds(0.9) for case in cases]
    assert 0.93 <= np.mean(held) <= 0.97


def test_the_interval_over_folds_holds_the_truth_where_the_plain_one_does_not():
    # Fold values of a shared part, as overlapping training sets make it, and one of their own: Nadeau
    # and Bengio assume a correlation of test / (test + train) = 1 / k.
    folds = 5
    generator = np.random.default_rng(0)
    shared, own = generator.normal(size=(CASES, 1)), generator.normal(size=(CASES, folds))
    cases = 0.9 + 0.01 * (math.sqrt(1 / folds) * shared + math.sqrt(1 - 1 / folds) * own)
    held = [folds_interval(case, 1 / (folds - 1)).holds(0.9) for case in cases]
    assert 0.93 <= np.mean(held) <= 0.97
    assert np.mean([t_interval(case).holds(0.9) for case in cases]) < 0.90


def test_resamples_keep_the_size_of_each_stratum_and_draw_all_of_it_alike():
    strata = np.array([2, 0, 2, 1, 0, 2])  # in no order
    counts = np.concatenate(list(resamples(strata, 4000)))
    for stratum, size in ((0, 2), (1, 1), (2, 3)):
        assert (counts[:, strata == stratum].sum(1) == size).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.05)
    # The variance of a multinomial count, (n - 1) / n.
    np.testing.assert_allclose(counts.var(0), np.array([2, 1, 2, 0, 1, 2]) / [3, 2, 3, 1, 2, 3], atol=0.05)


def test_the_bootstrap_of_a_mean_is_scipys():
    right = (np.random.default_rng(0).random(300) < 0.8).astype(float)
    ours = np.quantile(bootstrap_means(right[:, None], np.zeros(300), 10_000)[:, 0], [0.025, 0.975])
    theirs = stats.bootstrap((right,), np.mean, method="percentile", n_resamples=10_000, rng=1)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


def test_a_bootstrap_over_what_each_was_asked_leaves_out_the_rest():
    scores = np.array([[1.0, math.nan], [0, math.nan], [1, 1], [0, 1]])
    means = bootstrap_means(scores, np.zeros(4), 500)
    known = means[:, 1][~np.isnan(means[:, 1])]
    assert (known == 1).all()
    assert means[:, 0].std() > 0.1


def test_mcnemar_is_statsmodels_exact_test():
    one = RANDOM.random(500) < 0.9
    other = RANDOM.random(500) < 0.85
    table = [
        [np.sum(one & other), np.sum(one & ~other)],
        [np.sum(~one & other), np.sum(~one & ~other)],
    ]
    assert mcnemar(one.astype(float), other.astype(float)) == pytest.approx(
        statsmodels_mcnemar(table, exact=True).pvalue
    )
    assert mcnemar(one.astype(float), one.astype(float)) == 1


def test_of_several_seeds_mcnemar_is_scipys_paired_permutation_test():
    one, other = (RANDOM.random((2, 5, 40)) < [[[0.9]], [[0.8]]]).mean(1)  # of five seeds each
    theirs = stats.permutation_test(
        (one, other),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=1,
    )
    assert mcnemar(one, other) == pytest.approx(theirs.pvalue, abs=0.01)


def test_the_permutation_test_draws_what_mcnemars_counts():
    one, other = (RANDOM.random((2, 200)) < [[0.9], [0.85]]).astype(float)
    assert mcnemar(one / 2, other / 2) == pytest.approx(mcnemar(one, other), abs=0.015)


def test_mcnemar_errs_in_no_more_than_5_of_100_cases_without_a_difference():
    generator = np.random.default_rng(0)
    one, other = (generator.random((2, CASES, 300)) < 0.8).astype(float)
    assert np.mean([mcnemar(*pair) < 0.05 for pair in zip(one, other, strict=True)]) <= 0.06


def test_welchs_test_is_scipys_and_says_nothing_of_single_seeds_or_no_spread():
    one, other = [0.90, 0.92, 0.91, 0.93], [0.93, 0.95, 0.94]
    assert seeds_p_value(one, other) == stats.ttest_ind(one, other, equal_var=False).pvalue
    assert math.isnan(seeds_p_value([0.9], other))
    assert math.isnan(seeds_p_value([0.9, 0.9], [0.8, 0.8]))


def test_the_corrected_test_over_folds_is_bouckaert_and_franks_formula():
    differences = np.array([0.02, 0.03, 0.01, 0.02, 0.04, 0.00, 0.01, 0.03, 0.02, 0.02])
    statistic = differences.mean() / math.sqrt((1 / 10 + 1 / 9) * differences.var(ddof=1))
    assert folds_p_value(differences, 1 / 9) == pytest.approx(2 * stats.t.sf(statistic, 9))
    assert math.isnan(folds_p_value([0.1], 1 / 9))


def test_equivalence_is_two_one_sided_tests_at_5_in_100():
    for seed in range(200):
        values = np.random.default_rng(seed).normal(0.99, 0.004, 4)
        p_value = DescrStatsW(values).ttost_mean(0.985, 0.995)[0]
        assert (equivalence(values, CLAIM)[0] == "reproduced") == (p_value < 0.05)


def test_a_claim_that_is_off_is_reproduced_in_no_more_than_5_of_100_cases():
    cases = np.random.default_rng(0).normal(0.985, 0.004, (CASES, 5))  # just at the tolerance
    verdicts = [equivalence(case, CLAIM)[0] for case in cases]
    assert np.mean([verdict == "reproduced" for verdict in verdicts]) <= 0.06
    assert np.mean([verdict == "not reproduced" for verdict in verdicts]) <= 0.06


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.99], "underpowered"), ([0.99] * 3, "reproduced"), ([0.97] * 3, "not reproduced")],
)
def test_equivalence_of_a_single_seed_and_of_equal_ones(values, verdict):
    assert equivalence(values, CLAIM)[0] == verdict


def test_holms_correction_is_that_of_rs_p_adjust():
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_cliques_join_neighbours_and_none_lies_within_another():
    apart = np.zeros((5, 5), dtype=bool)
    for first, second in ((0, 3), (0, 4), (1, 4)):
        apart[first, second] = apart[second, first] = True
    assert cliques(apart) == [(0, 2), (1, 3), (2, 4)]
    assert cliques(np.ones((3, 3), dtype=bool) & ~np.eye(3, dtype=bool)) == []
    assert cliques(np.zeros((3, 3), dtype=bool)) == [(0, 2)]


@pytest.mark.extra("baycomp")
def test_what_is_better_in_practice_is_said_of_the_right_one():
    lower, higher = [0.90, 0.91, 0.90, 0.92, 0.91], [0.94, 0.95, 0.93, 0.96, 0.95]
    first, same, second = practical_difference(higher, lower, rope=0.01)
    assert first > 0.9
    assert first + same + second == pytest.approx(1)
    assert practical_difference(lower, higher, rope=0.01)[2] > 0.9
    assert practical_difference(lower, higher, rope=0.1)[1] > 0.9
    assert practical_difference(lower, lower, rope=0.01) == (0.0, 1.0, 0.0)
