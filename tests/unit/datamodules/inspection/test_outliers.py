"""Robust scores are z-scores that outliers can't hide behind."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from darkroom.datamodules.inspection.image_statistics import MIN_SCORE, robust_scores

RNG = np.random.default_rng(0)


def test_of_a_normal_sample_they_are_its_z_scores():
    values = RNG.normal(10, 2, 100_000)
    np.testing.assert_allclose(robust_scores(values), scipy.stats.zscore(values), atol=0.1)


def test_the_spread_is_scipys_median_absolute_deviation_scaled_for_normal_samples():
    values = RNG.exponential(size=501)
    spread = scipy.stats.median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(robust_scores(values), (values - np.median(values)) / spread, rtol=1e-4)


def test_a_third_of_outliers_does_not_hide_itself():
    values = np.concatenate([RNG.normal(size=200), np.full(100, 1000.0)])
    assert (robust_scores(values)[200:] > MIN_SCORE).all()
    assert abs(scipy.stats.zscore(values)[200:]).max() < MIN_SCORE


def test_one_value_off_among_equal_ones_is_far_off():
    values = np.full(1000, 500.0)
    values[3] = 375.0
    scores = robust_scores(values)
    assert scores[3] < -MIN_SCORE
    assert np.delete(scores, 3) == pytest.approx(0)
