"""Smoothed range-test curve and suggested rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ...evaluation.array_types import Floats

SMOOTHING_DECADES = 0.2  # standard deviation of the smoothing kernel, on the logarithm of the rate
CEILING = 2.0  # times the loss at the start: what is above would blur into the rates before it
LEFT_OUT = 1  # kernels at the start of the curve, where it has seen too few losses to have a slope


@dataclass(frozen=True)
class Suggestion:
    """What the curve says.

    Attributes:
        steepest: The rate at which the loss falls fastest, by the logarithm of the rate.
        lowest: The rate at which it is lowest.
        still_falling: It was lowest at the end: larger rates may be better still.
    """

    steepest: float
    lowest: float
    still_falling: bool

    @property
    def tenth(self) -> float:
        """A tenth of the rate at which the loss is lowest."""
        return self.lowest / 10


@dataclass(frozen=True)
class RangeCurve:
    """Losses of training steps at rising rates.

    Attributes:
        rates: Of `model.lr`, rising in equal ratios, (N,).
        losses: What training minimised, of each step's batches, before the step, (N,).
        diverged: The test was ended by the loss.
    """

    rates: Floats
    losses: Floats
    diverged: bool

    @property
    def kernel_steps(self) -> float:
        """The smoothing kernel's standard deviation, in steps."""
        decades_a_step = float(np.diff(np.log10(self.rates)).mean())
        return SMOOTHING_DECADES / decades_a_step

    @property
    def start(self) -> float:
        """The mean loss of the first steps."""
        return float(self.losses[: max(3, round(self.kernel_steps))].mean())

    def smoothed(self) -> Floats:
        """Losses averaged by a centred Gaussian, (N,).

        The usual running mean lags behind the rates, and would suggest too high ones.
        """
        finite = np.nan_to_num(self.losses, nan=np.inf, posinf=np.inf)
        cut = np.minimum(finite, CEILING * self.start)
        smoothed: Floats = gaussian_filter1d(cut, self.kernel_steps, mode="nearest")
        return smoothed

    def suggestion(self) -> Suggestion | None:
        """What the curve says; None where the loss did not fall by more than it scatters."""
        smoothed = self.smoothed()
        first = round(LEFT_OUT * self.kernel_steps)
        lowest = int(smoothed.argmin())
        if lowest <= first + 1:
            return None
        scatter = float(np.std(self.losses[:lowest] - smoothed[:lowest]))
        if self.start - smoothed[lowest] < scatter:
            return None
        slopes = np.gradient(smoothed, np.log10(self.rates))
        steepest = first + int(slopes[first:lowest].argmin())
        return Suggestion(
            steepest=float(self.rates[steepest]),
            lowest=float(self.rates[lowest]),
            still_falling=not self.diverged and lowest >= len(smoothed) - 1 - self.kernel_steps,
        )


def rates_told(curve: RangeCurve, suggestion: Suggestion | None) -> list[str]:
    """What was seen and what it suggests, in sentences."""
    ended = "where the loss diverged" if curve.diverged else "without diverging"
    lines = [f"{len(curve.rates)} steps at rates from {curve.rates[0]:.2g} to {curve.rates[-1]:.2g}, {ended}"]
    if suggestion is None:
        return [
            *lines,
            "the loss did not fall by more than it scatters, and nothing is suggested: more steps or other "
            "rates may tell more (--steps, --lr-range)",
        ]
    steepest, lowest, tenth = (
        f"{rate:.2g}" for rate in (suggestion.steepest, suggestion.lowest, suggestion.tenth)
    )
    lines.append(f"the loss fell fastest at {steepest} and was lowest at {lowest}")
    if suggestion.still_falling:
        lines.append("it was falling still: larger rates may tell more (--lr-range)")
    return [
        *lines,
        f"suggested: {tenth}, a tenth of the latter: it keeps a distance from divergence, of which the "
        "steepest descent knows nothing",
        f"a schedule that falls may bear more; to search, in sweep.space: "
        f"model.lr: {{low: {tenth}, high: {lowest}, log: true}}",
    ]
