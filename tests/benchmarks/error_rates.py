"""Error rates of our tests and coverages of our intervals, simulated: docs/explanation/statistics.md.

Whether a run is right about an image is 0 or 1. It follows from crossed random effects: how hard the image is
for all, how well a configuration suits it, how well a seed came out, and what is left. Numbers are judged by
the very functions that the commands call.

    python tests/benchmarks/error_rates.py [--parts two_way power ...] [--cases 1000] [--out tables.md]

A figure is the median of a table's cells, and the least and greatest of them; --out writes the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from darkroom.experiments.analysis.slices.slice_metrics import f1_scores, mean_f1
from darkroom.experiments.evaluation.bootstrap import unit_scores
from darkroom.experiments.evaluation.proportions import share_interval
from darkroom.experiments.evaluation.significance import SIGNIFICANCE, seeds_p_value, t_interval
from darkroom.experiments.evaluation.stored_predictions import StoredPredictions
from darkroom.experiments.evaluation.two_way_test import (
    TwoWay,
    difference_interval,
    difference_p_value,
    two_way_test,
)
from darkroom.experiments.workflows.learning_curve.power_law import PowerLaw, fit_curve

IMAGES = (300, 1000, 10_000)
SEEDS = ((2, 2), (3, 3), (5, 5), (10, 10), (20, 20), (2, 5), (3, 10), (5, 20))
RATIOS = (1 / 3, 1.0, 3.0)  # standard error over seeds, over that of images
ACCURACIES = (0.7, 0.9, 0.95, 0.98, 0.99, 0.995)
F1_ACCURACIES = (0.6, 0.8, 0.9, 0.95)
# Standard deviations of the effects: of an image, of how a configuration suits it, and of what is left.
DIFFICULTY, SUITED, REST = 1.5, 0.6, 0.5


class Draw(NamedTuple):
    """What is right in one simulated comparison: 0 or 1, (N, S) of either configuration."""

    one: NDArray[np.float64]
    other: NDArray[np.float64]


@cache
def variance_over_images(accuracy: float) -> float:
    """Of the difference between two configurations' chances at an image."""
    generator, count = np.random.default_rng(0), 200_000
    hard = generator.normal(0, DIFFICULTY, count)
    hard += stats.norm.ppf(accuracy) * math.hypot(DIFFICULTY, SUITED, REST)
    one, other = (stats.norm.cdf((hard + generator.normal(0, SUITED, count)) / REST) for _ in range(2))
    return float(np.var(one - other))


def seed_effect(accuracy: float, images: int, seeds: Sequence[int], ratio: float) -> float:
    """Standard deviation of the seeds' effect for which the standard errors have this ratio."""
    slope = stats.norm.pdf(stats.norm.ppf(accuracy)) / math.hypot(DIFFICULTY, SUITED, REST)
    over_images = variance_over_images(accuracy) / images
    return ratio * math.sqrt(over_images / sum(1 / count for count in seeds)) / float(slope)


def draws(
    cases: int, images: int, seeds: tuple[int, int], ratio: float, accuracy: float, gain: float = 0.0
) -> Iterator[Draw]:
    """Simulated comparisons; over both seeds and images the first configuration is better by `gain`."""
    generator = np.random.default_rng(images + 7 * sum(seeds))
    effect = seed_effect(accuracy, images, seeds, ratio)
    total = math.hypot(DIFFICULTY, SUITED, REST, effect)
    means = [float(stats.norm.ppf(each)) * total for each in (accuracy + gain, accuracy)]
    for _ in range(cases):
        hard = generator.standard_normal((images, 1), np.float32) * np.float32(DIFFICULTY)
        right = []
        for mean, count in zip(means, seeds, strict=True):
            chance = hard + generator.standard_normal((images, 1), np.float32) * np.float32(SUITED)
            chance = chance + (mean + generator.normal(0, effect, count)).astype(np.float32)
            rest = generator.standard_normal((images, count), np.float32) * np.float32(REST)
            right.append((chance > rest).astype(np.float64))
        yield Draw(*right)


def judged(draw: Draw) -> TwoWay:
    """As `darkroom compare` judges accuracy."""
    return two_way_test((draw.one.mean(0).tolist(), draw.other.mean(0).tolist()), draw)


def by_separate_tests(draw: Draw) -> bool:
    """The rule of earlier versions: significant over seeds (Welch), and over images."""
    one, other = draw.one.mean(0), draw.other.mean(0)
    if np.ptp(one) == np.ptp(other) == 0:
        return False
    over_seeds = seeds_p_value(one.tolist(), other.tolist())
    over_images = difference_p_value(draw.one.mean(1) - draw.other.mean(1))
    return bool(max(over_seeds, over_images) < SIGNIFICANCE)


class Rates(NamedTuple):
    """How often a difference is found: by the test, by it without subtracting the residual, by two tests."""

    found: float
    whole_residual: float
    separate: float


def rates(cases: Iterator[Draw]) -> Rates:
    """Of simulated comparisons."""
    rows = []
    for draw in cases:
        test = judged(draw)
        whole = replace(test, residual=(0.0, 0.0))
        found = [each.p_value < SIGNIFICANCE for each in (test, whole)]
        rows.append((*found, by_separate_tests(draw)))
    return Rates(*np.mean(rows, axis=0).tolist())


class Line(NamedTuple):
    """A line of a table: what it is of, and shares by their column's name."""

    of: dict[str, str]
    shares: dict[str, float]


def two_way(cases: int) -> Iterator[Line]:
    """The share of comparisons without a difference in which the two-way test finds one."""
    yield from _two_way_lines(cases, power=False)


def power(cases: int) -> Iterator[Line]:
    """The share of true differences, of 2.8 standard errors, that the two-way test finds."""
    yield from _two_way_lines(cases, power=True)


def _two_way_lines(cases: int, power: bool) -> Iterator[Line]:
    kinds = ["", "without subtracting, "] + ([] if power else ["two tests, as before, "])
    for accuracy in (0.8, 0.95):
        for images in IMAGES:
            for seeds in SEEDS:
                found = []
                for ratio in RATIOS:
                    error = math.sqrt(variance_over_images(accuracy) / images * (1 + ratio**2))
                    gain = min(2.8 * error, 0.99 - accuracy) if power else 0.0
                    found.append(rates(draws(cases, images, seeds, ratio, accuracy, gain)))
                yield Line(
                    {"accuracy": f"{accuracy}", "images": f"{images:,}", "seeds": _seeds(seeds)},
                    {
                        f"{kind}{_ratio(ratio)}": each[place]
                        for place, kind in enumerate(kinds)
                        for ratio, each in zip(RATIOS, found, strict=True)
                    },
                )


def shares(cases: int) -> Iterator[Line]:
    """The share of 95 % intervals over images that hold the true accuracy of the mean of a few runs."""
    yield from _coverages((1, 3, 10), lambda *cell: share_coverage(cases, *cell))


def share_coverage(cases: int, seeds: int, images: int, accuracy: float) -> float:
    """Of accuracies over images."""
    return float(
        np.mean(
            [
                share_interval(draw.one.mean(1)).holds(accuracy)
                for draw in draws(cases, images, (seeds, 1), 0.0, accuracy)
            ]
        )
    )


def differences(cases: int) -> Iterator[Line]:
    """The share of 95 % intervals over images that hold the true difference, 0, of a few runs."""
    yield from _coverages((1, 3, 10), lambda *cell: difference_coverage(cases, *cell))


def difference_coverage(cases: int, seeds: int, images: int, accuracy: float) -> float:
    """Of differences between equally good configurations, over images."""
    return float(
        np.mean(
            [
                difference_interval(draw.one.mean(1) - draw.other.mean(1)).holds(0)
                for draw in draws(cases, images, (seeds, seeds), 0.0, accuracy)
            ]
        )
    )


def over_seeds(cases: int) -> Iterator[Line]:
    """The share of 95 % intervals over seeds that hold the mean over all seeds, of those that are no ties."""
    yield from _coverages((2, 3, 5, 10), lambda *cell: _over_seeds(cases, *cell))


def _over_seeds(cases: int, seeds: int, images: int, accuracy: float) -> float:
    """Seeds vary by about two images, but no more than by half of all mistakes."""
    generator = np.random.default_rng(images + seeds)
    total = math.hypot(DIFFICULTY, SUITED, REST)
    mean = float(stats.norm.ppf(accuracy))
    spread = min(2 / images, (1 - accuracy) / 2)  # of two images is where ties are common
    effect = spread / (stats.norm.pdf(mean) / total)
    held = []
    for _ in range(cases):
        hard = mean * total + generator.normal(0, math.hypot(DIFFICULTY, SUITED), images)
        truth = float(stats.norm.cdf(hard / math.hypot(REST, effect)).mean())  # over seeds, of these images
        chances = stats.norm.cdf((hard + generator.normal(0, effect, (seeds, 1))) / REST)
        interval = t_interval((generator.random(chances.shape) < chances).mean(1).tolist())
        if math.isfinite(interval.low):
            held.append(interval.holds(truth))
    return float(np.mean(held)) if held else math.nan


def macro_f1(cases: int) -> Iterator[Line]:
    """The share of comparisons of two equally good models in which a difference in macro-F1 is found."""
    for images, classes in ((50, 3), (50, 10), (150, 10)):
        found = macro_f1_rate(cases, images, classes)
        yield Line({"images": str(images), "classes": str(classes)}, {"found": found})


def macro_f1_rate(cases: int, images: int, classes: int) -> float:
    """By the jackknife over images."""
    generator = np.random.default_rng(images + classes)
    found = []
    for _ in range(cases):
        targets = generator.integers(classes, size=images)
        hard = generator.normal(0, 1, images)
        runs = []
        for _ in range(2):
            right = hard + generator.normal(0, 0.7, images) < 1.0
            said = np.where(right, targets, (targets + generator.integers(1, classes, images)) % classes)
            ids = np.array([f"{number:04}" for number in range(images)])
            runs.append(StoredPredictions(ids, targets, np.eye(classes, dtype=np.float32)[said]))
        scores = unit_scores(runs, "f1_macro")
        assert scores is not None
        found.append(difference_p_value(scores[:, 0] - scores[:, 1]) < SIGNIFICANCE)
    return float(np.mean(found))


def f1(cases: int) -> Iterator[Line]:
    """The share of 95 % intervals of a slice's macro-F1 that hold the true one, of those that there are."""
    for images, classes in ((30, 3), (50, 10), (150, 10), (500, 10)):
        held = {
            f"{accuracy:.0%} right": f1_coverage(cases, images, classes, accuracy)
            for accuracy in F1_ACCURACIES
        }
        yield Line({"images": str(images), "classes": str(classes)}, held)


def f1_coverage(cases: int, images: int, classes: int, accuracy: float) -> float:
    """Of macro-F1 over images: mistakes are evenly spread over the classes, so that it is the accuracy."""
    generator = np.random.default_rng(images + classes)
    held = []
    for _ in range(cases):
        targets = np.arange(images) % classes
        wrong = (targets + generator.integers(1, classes, images)) % classes
        said = np.where(generator.random(images) < accuracy, targets, wrong)
        truth, predicted = (np.eye(classes)[each] for each in (targets, said))
        _, interval = mean_f1(f1_scores(truth, predicted), range(classes))
        if math.isfinite(interval.low):
            held.append(interval.holds(accuracy))
    return float(np.mean(held)) if held else math.nan


def doubling(cases: int) -> Iterator[Line]:
    """The share of 95 % intervals of a learning curve's gain by doubling that hold the true gain."""
    for seeds in (2, 3, 5):
        held = {
            f"runs vary by {spread:.0%}": doubling_coverage(-(-cases // 5), seeds, spread)
            for spread in (0.1, 0.3)
        }
        yield Line({"runs of each size": str(seeds)}, held)


def doubling_coverage(cases: int, seeds: int, spread: float, resamples: int = 60) -> float:
    """Of a known power law; errors of runs vary by a share of themselves, and err on the same hard images."""
    generator, images = np.random.default_rng(seeds), 1000
    law = PowerLaw(0.02, 0.05, 0.5, 1600.0)
    sizes = np.repeat([100.0, 200, 400, 800, 1600], seeds)
    truth = -float(np.diff(law(np.array([1600.0, 3200.0])))[0])
    held = []
    for _ in range(cases):
        errors = law(sizes) * np.exp(generator.normal(0, spread, len(sizes)) - spread**2 / 2)
        hard = math.sqrt(0.7) * generator.standard_normal((images, 1))
        rest = math.sqrt(0.3) * generator.standard_normal((images, len(sizes)))
        wrong = (hard + rest < stats.norm.ppf(errors)).astype(np.float32)
        drawn = generator.multinomial(images, np.full(images, 1 / images), resamples).astype(np.float32)
        curve = fit_curve(
            sizes.astype(int).tolist(), wrong.mean(0).tolist(), drawn @ wrong / images, 0.5 / images
        )
        if curve is not None:
            held.append(curve.doubling(1600)[1].holds(truth))
    return float(np.mean(held))


# Tables -------------------------------------------------------------------------------------------


def _coverages(seeds: Sequence[int], cell: Callable[[int, int, float], float]) -> Iterator[Line]:
    for images in (50, 300, 1000):
        for count in seeds:
            held = {f"{accuracy:.1%}": cell(count, images, accuracy) for accuracy in ACCURACIES}
            mean = float(np.nanmean(list(held.values())))
            yield Line({"images": f"{images:,}", "runs": str(count)}, {**held, "mean": mean})


def _ratio(ratio: float) -> str:
    return "1/3" if ratio < 1 else f"{ratio:g}"


def _seeds(seeds: tuple[int, int]) -> str:
    return str(seeds[0]) if seeds[0] == seeds[1] else f"{seeds[0]} and {seeds[1]}"


def table(lines: Sequence[Line]) -> str:
    """As markdown, in percent."""
    head = [*lines[0].of, *lines[0].shares]
    rows = [[*line.of.values(), *map(_percent, line.shares.values())] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---:"] * len(head), *rows))


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


# Each with what its shares are held against.
PARTS: dict[Callable[[int], Iterator[Line]], str] = {
    two_way: "5 %",
    power: "80 %, with many seeds",
    shares: "95 %",
    differences: "95 %",
    over_seeds: "95 %",
    macro_f1: "5 %",
    f1: "95 %",
    doubling: "95 %",
}


def main() -> None:
    from bench import arguments, figure  # lies beside this file, which tests import from elsewhere

    names = [part.__name__ for part in PARTS]
    given = arguments(
        __doc__,
        rounds=1,
        cases=(200, 2),
        more=lambda parser: (
            parser.add_argument("--parts", nargs="+", choices=names, default=names),
            parser.add_argument("--out", type=Path),
        ),
    )
    tables = []
    for part, against in PARTS.items():
        if part.__name__ in given.parts:
            what = " ".join((part.__doc__ or "").split()).rstrip(".")
            lines = list(islice(part(given.cases), 1 if given.tiny else None))
            tables.append(f"**{part.__name__}**: {what}.\n\n{table(lines)}\n")
            own = list(lines[0].shares)[: len(RATIOS) if part in (two_way, power) else None]
            cells = [100 * line.shares[name] for line in lines for name in own]
            known = [cell for cell in cells if not math.isnan(cell)]
            figure(f"error_rates/{part.__name__}", known or [0.0], "%", what, against)
    if given.out is not None:
        given.out.write_text("\n".join(tables))


if __name__ == "__main__":
    main()
