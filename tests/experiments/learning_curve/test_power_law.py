"""The fitted power law is the one that errors come from, and its intervals hold it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.learning_curve.command import Measured, told
from experiments.learning_curve.figure import draw_curve
from experiments.learning_curve.fit import PowerLaw, fit_curve, fit_power_law

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


def test_the_interval_of_doubling_holds_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    truth = PowerLaw(0.02, 0.05, 0.5, 1600.0)
    images, seeds, held, count = 2000, 5, 0, 20
    sizes = np.repeat(SIZES, seeds)
    expected = -float(np.diff(truth(np.array([1600.0, 3200])))[0])
    for _ in range(count):
        wrong = generator.random((len(sizes), images)) < truth(sizes)[:, None]
        places = generator.integers(images, size=(40, images))
        drawn = wrong[:, places].mean(2).T  # (R, M)
        curve = fit_curve(sizes.astype(int).tolist(), wrong.mean(1).tolist(), drawn, 0.5 / images)
        assert curve is not None
        held += curve.doubling(1600)[1].holds(expected)
    assert held >= 0.8 * count


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
