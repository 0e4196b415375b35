"""The two-way test errs as often as it says, over seeds and images; its parts are those of an ANOVA."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.error_rates import IMAGES, RATIOS, SEEDS, draws, judged, rates, variance_over_images
from scipy import stats

from darkroom.experiments.evaluation.significance import SIGNIFICANCE
from darkroom.experiments.evaluation.two_way_test import (
    Needed,
    TwoWay,
    difference_interval,
    difference_p_value,
    residual_variance,
    two_way_test,
    variance_of_mean,
)


def most(expected: float, cases: int) -> float:
    """A rate that a simulation of a test with the expected one surpasses once in ten thousand times."""
    return float(stats.binom.ppf(0.9999, cases, expected)) / cases


@pytest.mark.parametrize(("seeds", "allowed"), [((2, 2), 0.07), ((5, 5), 0.06), ((3, 10), 0.06)])
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_without_a_difference_it_finds_one_in_no_more_than_6_of_100_cases(seeds, allowed, ratio):
    assert rates(draws(400, 300, seeds, ratio, 0.8)).found <= most(allowed, 400)


def test_two_separate_tests_find_one_twice_as_often_as_they_say():
    found = rates(draws(400, 300, (20, 20), 1.0, 0.8))
    assert found.separate > most(0.05, 400) > found.found


@pytest.mark.slow
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("seeds", SEEDS)
def test_of_the_whole_grid_no_cell_errs_more_and_all_have_power(images, seeds):
    cases = 1000
    for accuracy in (0.8, 0.95):
        for ratio in RATIOS:
            found = rates(draws(cases, images, seeds, ratio, accuracy))
            assert found.found <= most(0.07 if min(seeds) == 2 else 0.06, cases)
            error = math.sqrt(variance_over_images(accuracy) / images * (1 + ratio**2))
            gain = min(2.8 * error, 0.99 - accuracy)
            better = rates(draws(cases, images, seeds, ratio, accuracy, gain))
            share = 0.8 if min(seeds) == 2 else 0.9  # 0.86 of the cautious variant, where seeds vary most
            assert better.found >= share * better.whole_residual


def test_its_parts_are_the_mean_squares_of_a_two_way_analysis_of_variance():
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    scores = np.random.default_rng(0).random((12, 4))
    images, runs = np.indices(scores.shape)
    frame = pd.DataFrame({"score": scores.ravel(), "image": images.ravel(), "run": runs.ravel()})
    table = anova_lm(ols("score ~ C(image) + C(run)", frame).fit())
    squares = table["sum_sq"] / table["df"]
    assert residual_variance(scores) == pytest.approx(squares["Residual"] / scores.size)
    found = two_way_test((scores.mean(0).tolist(), [0.0, 0.0]), (scores, np.zeros((12, 2))))
    assert found.over_seeds == pytest.approx((squares["C(run)"] / scores.size, 0))


def test_the_residual_counts_once_and_neither_part_less_than_whole():
    found = TwoWay(0.1, (3.0, 1.0), 5.0, (1.0, 0.5), (3, 3), 100)
    assert found.variance == pytest.approx(3 + 1 + 5 - 1.5)
    assert replace(found, residual=(3.0, 1.0)).variance == 5
    assert replace(found, over_images=0.1, residual=(0.1, 0.1)).variance == 4
    assert replace(found, folds=True).variance == 5  # whose spread holds the images already


def test_the_image_part_is_agresti_and_mins_for_paired_proportions():
    better, worse, count = 9, 3, 60
    differences = np.array([1.0] * better + [-1.0] * worse + [0.0] * (count - better - worse))
    b, c, n = better + 0.5, worse + 0.5, count + 2
    assert variance_of_mean(differences) == pytest.approx((b + c - (b - c) ** 2 / n) / n**2)
    assert difference_p_value(np.zeros(60)) == 1
    assert difference_interval(np.zeros(60)).high > 1 / 60


def test_a_difference_is_found_as_often_as_the_number_of_seeds_promises():
    (draw,) = draws(1, 1000, (3, 3), 2.0, 0.8, 0.02)
    found = replace(judged(draw), difference=0.03)
    needed = found.needed()
    assert needed is not None
    assert needed.seeds is not None
    assert 3 < needed.seeds < 100
    generator, cases = np.random.default_rng(0), 4000
    pure = found.over_images - sum(found.residual)
    spread = [part * 3 for part in found.over_seeds]
    values = [math.sqrt(each) * generator.normal(size=(cases, needed.seeds)) for each in spread]
    parts = [each.var(axis=1, ddof=1) / needed.seeds for each in values]
    distance = 0.03 + values[0].mean(1) - values[1].mean(1) + math.sqrt(pure) * generator.normal(size=cases)
    variance = sum(parts) + pure
    freedom = variance**2 / (sum(part**2 for part in parts) / (needed.seeds - 1) + pure**2 / 999)
    p = 2 * stats.t.sf(np.abs(distance) / np.sqrt(variance), freedom)
    assert np.mean(p < SIGNIFICANCE) == pytest.approx(0.8, abs=0.04)


def test_where_images_are_the_bottleneck_it_says_how_many_would_tell():
    found = TwoWay(0.01, (1e-6, 1e-6), 1e-4, (0.0, 0.0), (5, 5), 300)
    needed = found.needed()
    assert needed == Needed(None, math.ceil(300 * 1e-4 / (0.01 / 2.8016) ** 2))
    assert replace(found, difference=0.0).needed() is None
    # With as many images, and many seeds, four in five are found.
    enough = replace(found, over_images=1e-4 * 300 / needed.images, num_units=needed.images)
    assert stats.norm.sf(1.96 - 0.01 / math.sqrt(enough.over_images)) == pytest.approx(0.8, abs=0.01)


def test_runs_that_do_not_vary_are_tested_over_images():
    one = np.repeat(np.random.default_rng(0).random((400, 1)) < 0.95, 3, axis=1).astype(float)
    other = np.repeat(np.random.default_rng(1).random((400, 1)) < 0.8, 3, axis=1).astype(float)
    found = two_way_test((one.mean(0).tolist(), other.mean(0).tolist()), (one, other))
    assert found.variance == found.over_images
    assert found.freedom == pytest.approx(399)
    assert found.p_value == pytest.approx(difference_p_value(one[:, 0] - other[:, 0]))
