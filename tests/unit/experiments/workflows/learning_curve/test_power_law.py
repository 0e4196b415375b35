"""The fitted power law is the one that errors come from, and its intervals hold it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from benchmarks import error_rates
from scipy import stats

from darkroom.experiments.workflows.learning_curve.command import Measured, told
from darkroom.experiments.workflows.learning_curve.plot import draw_curve
from darkroom.experiments.workflows.learning_curve.power_law import (
    PowerLaw,
    _redrawn,
    fit_curve,
    fit_power_law,
)

SIZES = np.array([100.0, 200, 400, 800, 1600])


@pytest.mark.parametrize(("a", "b", "c"), [(0.0, 2.0, 0.35), (0.05, 5.0, 0.6), (0.2, 0.0, 0.5)])
def test_errors_of_a_law_give_the_law_back(a, b, c):
    law = fit_power_law(SIZES, a + b * SIZES**-c, 1e-5)
    beyond = np.array([3200.0, 12800])
    np.testing.assert_allclose(law(beyond), a + b * beyond**-c, atol=2e-4)


def test_no_law_has_a_negative_floor_or_falls_less_than_not_at_all():
    for errors in (np.array([0.5, 0.25, 0.1, 0.02, 0.0]), np.array([0.1, 0.12, 0.15, 0.2, 0.3])):
        law = fit_power_law(SIZES, errors, 1e-3)
        assert min(law.a, law.b) >= 0
        assert law.c > 0


def test_resampled_runs_vary_as_the_mean_of_runs_does():
    errors = np.array([0.10, 0.14, 0.05, 0.06, 0.07, 0.02])
    sizes = np.array([100.0, 100, 200, 200, 200, 400])
    drawn = np.stack(list(_redrawn(sizes, np.tile(errors, (4000, 1)))))
    for members in ([0, 1], [2, 3, 4]):  # squared standard errors of means, without a factor (n - 1) / n
        expected = stats.sem(errors[members]) ** 2
        assert drawn[:, members].mean(1).var() == pytest.approx(expected, rel=0.1)
    assert drawn[:, 5].std() > 0.1 * 0.02  # a single run takes the others' spread
    assert drawn.mean(0) == pytest.approx([0.12, 0.12, 0.06, 0.06, 0.06, 0.02], abs=1e-3)


def test_the_interval_of_doubling_holds_the_truth_about_as_often_as_it_says():
    assert error_rates.doubling_coverage(20, 2, 0.3, resamples=40) >= 0.75  # 95 in 100, less what 20 vary


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_of_the_whole_grid_intervals_of_doubling_hold_the_truth_as_often_as_the_docs_say(seeds, spread):
    # 93 to 99.5 in 100 were measured.
    assert error_rates.doubling_coverage(200, seeds, spread) >= 0.9


def test_single_runs_have_a_law_but_no_interval_and_three_sizes_are_looked_at():
    sizes, errors = [100, 200, 400], [0.4, 0.3, 0.2]
    curve = fit_curve(sizes, errors, np.tile(errors, (20, 1)), 1e-3)
    assert curve is not None
    assert curve.doubling(400)[1] == (-np.inf, np.inf)
    frame = pd.DataFrame({"seed": 0, "images": sizes, "value": [0.6, 0.7, 0.8]})
    words = " ".join(told(Measured("test/accuracy", frame, 500, curve)))
    assert "there is no interval: each fraction has a single run" in words
    miss = np.abs(curve.law(np.array(sizes, dtype=float)) - errors).max()
    assert miss > 0.001  # these errors fall faster than a law with a floor of 0 does
    assert f"the curve misses one by {miss:.4f}" in words
    law = PowerLaw(0.05, 0.1, 0.5, 400.0)
    met = Measured("test/accuracy", frame.assign(value=1 - law(np.array(sizes, float))), 500, curve)
    assert "the curve meets each" in " ".join(told(replace(met, curve=replace(curve, law=law))))


def test_two_sizes_are_too_few_and_it_says_so():
    assert fit_curve([100, 200, 200], [0.3, 0.2, 0.2], np.full((5, 3), 0.2), 1e-3) is None
    frame = pd.DataFrame({"seed": [0, 0], "images": [100, 200], "value": [0.7, 0.8]})
    (line,) = told(Measured("test/accuracy", frame, 50, None))
    assert "need at least 3 fractions, there are 2" in line


def test_the_figure_has_each_run_and_the_law_on_to_twice_the_images():
    sizes = [100, 100, 200, 200, 400, 400]
    errors = [0.4, 0.42, 0.3, 0.28, 0.2, 0.21]
    curve = fit_curve(sizes, errors, np.tile(errors, (20, 1)), 1e-3)
    assert curve is not None
    (axes,) = draw_curve(sizes, errors, curve, "1 - accuracy", 2).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert axes.get_xscale() == axes.get_yscale() == "log"
    np.testing.assert_array_equal(lines["runs"].get_xydata(), np.column_stack([sizes, errors]))
    np.testing.assert_allclose(lines["mean of 2 seeds"].get_ydata(), [0.41, 0.29, 0.205])
    ahead = lines["on to twice the images"]
    assert ahead.get_xdata()[-1] == pytest.approx(800)
    assert ahead.get_ydata()[-1] == pytest.approx(curve.law(np.array([800.0]))[0])
