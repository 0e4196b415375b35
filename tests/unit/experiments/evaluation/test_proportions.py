"""Intervals of shares hold the truth so often as said, near 100 % too; of single runs they are Wilson's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks import error_rates
from statsmodels.stats.proportion import proportion_confint

from darkroom.experiments.evaluation.proportions import mean_interval, share_interval
from darkroom.experiments.evaluation.significance import t_interval


@pytest.mark.parametrize("right", [50, 49, 25])
def test_of_a_single_run_it_is_statsmodels_wilson_interval(right):
    found = share_interval(np.array([1.0] * right + [0.0] * (50 - right)))
    assert found == pytest.approx(proportion_confint(right, 50, method="wilson"))


def test_all_right_is_no_certainty_over_other_images():
    assert share_interval(np.ones(50)).low == pytest.approx(0.929, abs=1e-3)


def test_of_what_counts_no_images_there_is_no_interval_without_a_mistake():
    assert share_interval(np.ones(50), is_count=False) == (-math.inf, math.inf)


def test_seeds_that_err_on_other_images_make_it_narrower_and_those_that_agree_do_not():
    generator = np.random.default_rng(0)
    same = np.repeat(generator.random((1000, 1)) < 0.9, 5, axis=1).mean(1)
    other = (generator.random((1000, 5)) < 0.9).mean(1)
    widths = [found.high - found.low for found in map(share_interval, (same, other))]
    assert widths[1] < 0.6 * widths[0]


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("images", [50, 1000])
def test_it_holds_the_truth_in_93_to_97_of_100_cases_near_100_percent_too(images, seeds):
    held = [error_rates.share_coverage(250, seeds, images, each) for each in (0.9, 0.95, 0.98, 0.995)]
    assert 0.93 <= np.mean(held) <= 0.98
    assert min(held) >= 0.89  # 90 in 100, less what 250 cases vary


@pytest.mark.slow
@pytest.mark.parametrize("coverage", [error_rates.share_coverage, error_rates.difference_coverage])
@pytest.mark.parametrize("images", [50, 300, 1000])
def test_of_the_whole_grid_none_holds_it_less_often_than_90_in_100(coverage, images):
    for seeds in (1, 3, 10):
        held = [coverage(1000, seeds, images, each) for each in error_rates.ACCURACIES]
        assert np.mean(held) >= 0.93
        assert min(held) >= 0.90


def test_what_is_no_share_has_students_interval():
    values = [0.3, 2.5, 0.1]
    assert mean_interval(np.array([*values, math.nan])) == t_interval(values)
