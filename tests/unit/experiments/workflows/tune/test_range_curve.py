"""What a learning-rate range test suggests, on curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from darkroom.experiments.workflows.tune.lr_curve import RangeCurve, rates_told
from darkroom.experiments.workflows.tune.lr_finder import Ramp

STEEPEST = 1e-3


def curve(steps: int, noise: float = 0.0, diverged: bool = True, high: float = 10.0) -> RangeCurve:
    """Falls from 2.3 by a logistic around 1e-3, and rises by a parabola of the logarithm from 1e-3 on."""
    ramp = Ramp(1e-6, high, steps)
    rates = np.array([ramp.rate(step) for step in range(steps)])
    decades = np.log10(rates / STEEPEST)
    losses = 2.3 - 1.6 / (1 + np.exp(-4 * decades))
    losses += 0.2 * np.maximum(0, decades) ** 2
    losses += noise * np.random.default_rng(0).standard_normal(steps)
    return RangeCurve(rates, losses, diverged)


def decades_apart(rate: float, other: float) -> float:
    return abs(float(np.log10(rate / other)))


@pytest.mark.parametrize("steps", [100, 300, 1000])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_steepest_and_the_lowest_point_are_found_where_they_are(steps, noise):
    exact = curve(10_000)
    suggestion = curve(steps, noise).suggestion()
    assert decades_apart(suggestion.steepest, STEEPEST) < 0.25
    assert decades_apart(suggestion.lowest, exact.rates[exact.losses.argmin()]) < 0.25
    assert suggestion.tenth == suggestion.lowest / 10
    assert not suggestion.still_falling


def test_a_running_mean_would_lag_behind_by_more_than_a_factor_of_two():
    # The reason for a centred kernel: the customary factor of 0.98, corrected for its bias.
    measured = curve(300)
    mean, running = 0.0, []
    for step, loss in enumerate(measured.losses, start=1):
        mean = 0.98 * mean + 0.02 * loss
        running.append(mean / (1 - 0.98**step))
    lagging = measured.rates[int(np.gradient(running, np.log10(measured.rates)).argmin())]
    assert lagging > 2 * STEEPEST
    assert measured.suggestion().steepest < 1.2 * STEEPEST


@pytest.mark.parametrize("end", [np.nan, np.inf, 1e30])
def test_losses_that_are_no_numbers_any_more_do_not_move_what_is_before_them(end):
    whole = curve(300)
    broken = RangeCurve(whole.rates, np.where(whole.rates > 3, end, whole.losses), diverged=True)
    assert broken.suggestion() == whole.suggestion()


def test_a_loss_that_only_scatters_suggests_nothing():
    rates = curve(300).rates
    losses = 2.3 + 0.1 * np.random.default_rng(0).standard_normal(300)
    flat = RangeCurve(rates, losses, diverged=False)
    assert flat.suggestion() is None
    assert "nothing is suggested" in rates_told(flat, None)[-1]
    rising = RangeCurve(rates, 2.3 + np.linspace(0, 5, 300) ** 2, diverged=True)
    assert rising.suggestion() is None


def test_a_loss_that_falls_to_the_end_is_said_to():
    measured = curve(200, diverged=False, high=1e-2)
    suggestion = measured.suggestion()
    assert suggestion.still_falling
    assert any("falling still" in line for line in rates_told(measured, suggestion))
