"""Confidence intervals, hypothesis tests and power."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .array_types import Floats

ReproductionVerdict: TypeAlias = Literal["reproduced", "not reproduced", "underpowered"]
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
POWER = 0.8
MAX_SEEDS = 10_000  # further than this nobody looks for a difference
CHUNK = 2**22  # numbers drawn at once, which bounds the memory


class Interval(NamedTuple):
    """Where a number lies: both ends included, infinite where nothing is known."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether it allows this value."""
        return self.low <= value <= self.high


# Over seeds ---------------------------------------------------------------------------------------


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of the mean of independent runs; infinite for a single one, and for runs that tie.

    Equal values don't tell how much others would vary: an interval without width would claim to know it.

    >>> low, high = t_interval([0.90, 0.92, 0.91])
    >>> f"{low:.4f} {high:.4f}"
    '0.8852 0.9348'
    """
    return _mean_interval(values, 1 / len(values), confidence)


def folds_interval(
    values: Sequence[float], test_per_train: float, confidence: float = CONFIDENCE
) -> Interval:
    """Interval of the mean over folds, widened as their training sets overlap (Nadeau and Bengio 2003).

    Args:
        values: One for each fold (of each repetition).
        test_per_train: Images judged on per image trained on: 1 / (k - 1) for k folds.
        confidence: How often the interval is to hold the mean.

    >>> low, high = folds_interval([0.90, 0.92, 0.91, 0.93, 0.89], 1 / 4)
    >>> f"{low:.4f} {high:.4f}"
    '0.8806 0.9394'
    """
    return _mean_interval(values, 1 / len(values) + test_per_train, confidence)


def _mean_interval(values: Sequence[float], share_of_variance: float, confidence: float) -> Interval:
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(-math.inf, math.inf)
    error = math.sqrt(float(np.var(values, ddof=1)) * share_of_variance)
    half_width = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Interval(mean - half_width, mean + half_width)


def seeds_p_value(
    one: Sequence[float], other: Sequence[float], test_per_train: tuple[float, float] = (0.0, 0.0)
) -> float:
    """Returns the p-value of Welch's t-test for runs of two configurations; NaN where no spread is known.

    Args:
        one: A value for each run.
        other: Likewise.
        test_per_train: Of each that are folds: 1 / (k - 1), by which the variance of their mean is wider, as
            in `folds_interval`; 0 of seeds, whose training images are not shared out.

    >>> f"{seeds_p_value([0.90, 0.92, 0.91], [0.93, 0.95, 0.94]):.4f}"
    '0.0213'
    >>> f"{seeds_p_value([0.90, 0.92, 0.91], [0.93, 0.95, 0.94], (0.5, 0)):.4f}"
    '0.0604'
    """
    if min(len(one), len(other)) < 2 or np.ptp(one) == np.ptp(other) == 0:
        return math.nan
    errors = [
        float(np.var(values, ddof=1)) * (1 / len(values) + shared)
        for values, shared in zip((one, other), test_per_train, strict=True)
    ]
    parts = [error**2 / (len(values) - 1) for error, values in zip(errors, (one, other), strict=True)]
    distance = abs(float(np.mean(one) - np.mean(other))) / math.sqrt(sum(errors))
    return float(2 * stats.t.sf(distance, sum(errors) ** 2 / sum(parts)))


def folds_p_value(differences: Sequence[float], test_per_train: float) -> float:
    """Returns the p-value of the corrected resampled t-test on shared folds (Nadeau and Bengio 2003).

    >>> f"{folds_p_value([0.02, 0.03, 0.01, 0.02, 0.04], 1 / 4):.4f}"
    '0.0349'
    """
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    if spread == 0:
        return math.nan
    error = spread * math.sqrt(1 / len(differences) + test_per_train)
    return float(2 * stats.t.sf(abs(np.mean(differences)) / error, len(differences) - 1))


def equivalence(values: Sequence[float], within: Interval) -> tuple[ReproductionVerdict, Interval]:
    """Whether the mean over seeds is a claimed value, up to a tolerance (Schuirmann 1987).

    Two one-sided t-tests at 0.05, as the 90 % interval of the mean, which is returned too: the claim is
    reproduced where all of it lies within the tolerance, not reproduced where none of it does, and the
    runs are too few or too unlike to tell where a part of it does.

    Args:
        values: One for each seed.
        within: The claimed value less and plus its tolerance; infinite where more, or less, counts too.

    >>> claim = Interval(0.9855, 0.9955)
    >>> equivalence([0.990, 0.992, 0.991], claim)[0]
    'reproduced'
    >>> equivalence([0.95, 0.96, 0.955], claim)[0]
    'not reproduced'
    >>> equivalence([0.97, 0.999, 0.991], claim)[0]
    'underpowered'
    """
    mean = float(np.mean(values))
    # Runs that tie are those of a recipe that does not vary.
    ties = len(values) > 1 and np.ptp(values) == 0
    found = Interval(mean, mean) if ties else t_interval(values, 1 - 2 * SIGNIFICANCE)
    if within.low <= found.low and found.high <= within.high:
        return "reproduced", found
    if found.low > within.high or found.high < within.low:
        return "not reproduced", found
    return "underpowered", found


# Over test samples --------------------------------------------------------------------------------


def resamples(strata: ArrayLike, count: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """How often each sample is drawn, when as many as there are are drawn from each stratum with replacement.

    Args:
        strata: The stratum of each of N samples, such as its class.
        count: R, the number of resamples.
        seed: Of the drawing.

    Yields:
        Counts (r, N), together R rows.

    >>> [drawn.shape for drawn in resamples([0, 0, 1], 5)]
    [(5, 3)]
    >>> next(resamples([0, 0, 1], 5))[:, 2].tolist()  # alone in its stratum
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    generator = np.random.default_rng(seed)
    _, members = np.unique(np.asarray(strata), return_inverse=True)
    order = np.argsort(members, kind="stable")
    sizes = np.bincount(members)
    begins = np.repeat(np.cumsum(sizes) - sizes, sizes)  # (N,), in order
    num_samples = len(members)
    rows = max(1, CHUNK // num_samples)
    for start in range(0, count, rows):
        size = min(rows, count - start)
        drawn = begins + generator.integers(np.repeat(sizes, sizes), size=(size, num_samples))
        drawn += num_samples * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_samples).reshape(size, num_samples)
        yield counts[:, np.argsort(order)].astype(np.float32)


def bootstrap_means(scores: Floats, strata: ArrayLike, count: int = 2000, seed: int = 0) -> Floats:
    """Means of each column over resampled rows, (R, M); all columns see the same resamples.

    Args:
        scores: (N, M), such as whether each of M networks is right on each of N samples; NaN where one
            was not asked.
        strata: (N,); see `resamples`.
        count: R.
        seed: Of the drawing.

    >>> right = np.array([[1.0, 0], [1, 1], [0, 1], [1, 1]])
    >>> bootstrap_means(right, np.zeros(4), 1000).shape
    (1000, 2)
    """
    known = ~np.isnan(scores)
    filled = np.where(known, scores, 0).astype(np.float32)
    everywhere = bool(known.all())
    means = []
    for counts in resamples(strata, count, seed):
        sizes = np.float32(len(scores)) if everywhere else counts @ known.astype(np.float32)
        with np.errstate(invalid="ignore"):  # NaN where nothing drawn was asked
            means.append(counts @ filled / sizes)
    return np.concatenate(means)


def mcnemar(one: Floats, other: Floats, count: int = 10_000, seed: int = 0) -> float:
    """P-value that two networks are right equally often on the same samples, (N,) each (McNemar 1947).

    Exact where both are 0 or 1. Of other scores, such as how many of several seeds are right, it is the
    permutation test of which McNemar's is a case: under the hypothesis either network may have given
    either score of a sample, so that the sign of each difference is drawn anew, `count` times.

    >>> mcnemar(np.array([1.0] * 10 + [0, 1]), np.array([0.0] * 9 + [1, 1, 1]))
    0.021484375
    """
    differences = np.asarray(one - other, dtype=np.float64)
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 1.0
    if (np.abs(differences) == 1).all():
        return float(stats.binomtest(int((differences > 0).sum()), len(differences)).pvalue)
    generator = np.random.default_rng(seed)
    least = abs(differences.sum()) - 1e-9  # of sums that are equal but for rounding
    rows, extreme = max(1, CHUNK // len(differences)), 0
    for start in range(0, count, rows):
        signs = generator.choice((-1.0, 1.0), (min(rows, count - start), len(differences)))
        extreme += int((np.abs(signs @ differences) >= least).sum())
    return (extreme + 1) / (count + 1)


# Several at once ----------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979); NaN stays, and is not counted.

    >>> holm([0.01, math.nan, 0.04])
    [0.02, nan, 0.04]
    """
    from statsmodels.stats.multitest import multipletests

    corrected = np.array(p_values, dtype=float)
    known = ~np.isnan(corrected)
    if known.any():
        corrected[known] = multipletests(corrected[known], method="holm")[1]
    return [float(value) for value in corrected]


def cliques(different: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last of the runs of neighbours of which no two differ, of two or more.

    `different`, (M, M), says it of each two, in the order of their means. These are what a critical
    difference diagram joins (Demšar 2006).

    >>> apart = np.zeros((4, 4), dtype=bool)
    >>> apart[0, 2:] = apart[2:, 0] = True
    >>> cliques(apart)
    [(0, 1), (1, 3)]
    """
    found: list[tuple[int, int]] = []
    for first in range(len(different)):
        last = first
        while last + 1 < len(different) and not different[first : last + 2, first : last + 2].any():
            last += 1
        if last > first and not any(last <= end for _, end in found):
            found.append((first, last))
    return found


def practical_difference(
    one: Sequence[float], other: Sequence[float], rope: float
) -> tuple[float, float, float]:
    """Probabilities that the first is better, that both are the same in practice, that the second is.

    By the Bayesian signed-rank test over pairs such as runs with the same seed (Benavoli et al. 2017).

    Args:
        one: Scores, higher is better.
        other: Its counterparts.
        rope: Difference up to which two scores are the same in practice.
    """
    from baycomp import SignedRankTest

    # 10,000 draws give a probability to within 0.01.
    posterior = SignedRankTest(np.array(one), np.array(other), rope, nsamples=10_000, random_state=0)
    first, same, second = posterior.probs()
    return float(first), float(same), float(second)
