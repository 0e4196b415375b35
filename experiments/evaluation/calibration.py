"""Calibration error, Brier score, risk-coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .array_types import Floats
from .temperature_scaling import EPSILON, Targets, fit_temperatures, scale

if TYPE_CHECKING:
    from darkroom.lightning_modules.metrics.epoch_outputs import Predictions

NUM_BINS = 15
# Of unscaled probabilities, `test/ece` and `test/log_loss` are recorded anyway.
CALIBRATION_METRICS = (
    "temperature",
    "ece_scaled",
    "adaptive_ece",
    "adaptive_ece_scaled",
    "brier",
    "brier_scaled",
    "log_loss_scaled",
    "aurc",
)


@dataclass(frozen=True)
class Calibration:
    """How far a run's probabilities of its test images can be believed.

    Attributes:
        metrics: `calibration/...`, of `CALIBRATION_METRICS` those that are known: without a temperature
            nothing is scaled, and that of each of several labels is no metric of the run.
        temperatures: One, or each label's; None where validation tells none.
        scaled: Probabilities of the test images at these temperatures, (N, C); None where there are none.
    """

    metrics: dict[str, float]
    temperatures: list[float | None]
    scaled: Floats | None


def calibrate(validation: Predictions | None, test: Predictions) -> Calibration:
    """Fits temperatures to predictions of validation images, and judges those of test images with them."""
    targets, probabilities = arrays(test)
    temperatures: list[float | None] = [None]
    if validation is not None:
        temperatures = fit_temperatures(*arrays(validation))
    return judge(targets, probabilities, temperatures, test.ranking.cpu().numpy())


def judge(
    targets: Targets, probabilities: Floats, temperatures: Sequence[float | None], ranking: Floats
) -> Calibration:
    """Judges probabilities (N, C) as they are and at one temperature, or one for each label.

    What ranks, (N, C), says which decisions are surer than others.
    """
    _, risks = risk_coverage(*decisions(targets, probabilities, ranking))
    before = errors(targets, probabilities)
    values = {name: before[name] for name in ("adaptive_ece", "brier")} | {"aurc": float(risks.mean())}
    scaled = None
    if any(temperature is not None for temperature in temperatures):
        scaled = scale(targets, probabilities, temperatures)
        values |= {f"{name}_scaled": value for name, value in errors(targets, scaled).items()}
    if targets.ndim == 1 and temperatures[0] is not None:
        values["temperature"] = temperatures[0]
    metrics = {f"calibration/{name}": values[name] for name in CALIBRATION_METRICS if name in values}
    return Calibration(metrics, list(temperatures), scaled)


def arrays(predictions: Predictions) -> tuple[Targets, Floats]:
    """Targets and probabilities as NumPy has them."""
    return predictions.targets.cpu().numpy(), predictions.probabilities.cpu().numpy()


def summary(metrics: Mapping[str, float]) -> str | None:
    """What scaling changes on test, in a line; None for a run that was not tested.

    >>> summary({"test/ece": 0.08, "test/log_loss": 0.3, "calibration/aurc": 0.01, "calibration/ece_scaled":
    ...     0.02, "calibration/log_loss_scaled": 0.25, "calibration/temperature": 0.7})
    "temperature 0.70 (validation's): ece 0.0800 -> 0.0200, log_loss 0.3000 -> 0.2500"
    """
    if "calibration/aurc" not in metrics:
        return None
    if "calibration/ece_scaled" not in metrics:
        return "no temperature: validation has no mistakes to learn one from, or no images"
    changes = [
        f"{name} {metrics[f'test/{name}']:.4f} -> {metrics[f'calibration/{name}_scaled']:.4f}"
        for name in ("ece", "log_loss")
    ]
    temperature = metrics.get("calibration/temperature")
    whose = "each label's temperature" if temperature is None else f"temperature {temperature:.2f}"
    return f"{whose} (validation's): {', '.join(changes)}"


def errors(targets: Targets, probabilities: Floats) -> dict[str, float]:
    """Calibration errors, Brier score and log loss; of labels their means over labels."""
    pairs = confidences(targets, probabilities)
    return {
        "ece": float(np.mean([bin_scores(hits, scores).error for hits, scores in pairs])),
        "adaptive_ece": float(np.mean([adaptive_error(hits, scores) for hits, scores in pairs])),
        "brier": brier_score(targets, probabilities),
        "log_loss": log_loss(targets, probabilities),
    }


def confidences(targets: Targets, probabilities: Floats) -> list[tuple[Floats, Floats]]:
    """What is held against each other: of classes whether the likeliest is true, and its probability; of
    each label whether it is there, and its probability; (N,) each."""
    scores = probabilities.astype(np.float64)
    if targets.ndim == 2:
        return list(zip(targets.T.astype(np.float64), scores.T, strict=True))
    return [((probabilities.argmax(axis=1) == targets).astype(np.float64), scores.max(axis=1))]


class Bins(NamedTuple):
    """Equally wide bins of scores, those that hold any.

    Attributes:
        places: Which they are, counted from 0, (B,).
        sizes: Scores in them, (B,).
        shares: Share of hits, (B,).
        gaps: Mean score less share of hits, (B,).
        error: Mean size of the gaps, over scores: the expected calibration error.
    """

    places: NDArray[np.int64]
    sizes: NDArray[np.int64]
    shares: Floats
    gaps: Floats
    error: float


def bin_scores(hits: Floats, scores: Floats, num_bins: int = NUM_BINS) -> Bins:
    """Bins scores (N,) in [0, 1], each with its hit of 0 or 1, (N,) (Guo et al. 2017, equation 3).

    >>> round(bin_scores(np.array([1.0, 0, 1, 1]), np.array([0.9, 0.9, 0.6, 0.6]), 10).error, 4)
    0.4
    """
    scores = scores.astype(np.float64)
    bins = np.digitize(scores, np.linspace(0, 1, num_bins + 1)[1:-1])  # (N,)
    sizes = np.bincount(bins)
    places = np.flatnonzero(sizes)
    sizes = sizes[places]
    shares = np.bincount(bins, hits)[places] / sizes
    gaps = np.bincount(bins, scores)[places] / sizes - shares
    return Bins(places, sizes, shares, gaps, float(np.abs(gaps) @ sizes / len(scores)))


def adaptive_error(hits: Floats, scores: Floats, num_bins: int = NUM_BINS) -> float:
    """The calibration error over bins of equally many scores (Nguyen and O'Connor 2015).

    Equally wide bins hold most of a sure network's images in the last one, and average over them.

    >>> adaptive_error(np.array([1.0, 0, 1, 1]), np.array([0.75, 0.75, 0.5, 0.5]), 2)
    0.375
    """
    order = np.argsort(scores, kind="stable")
    means = mean_of_ties(hits[order], scores[order])
    gaps = np.array_split(scores[order] - means, min(num_bins, len(scores)))
    return float(sum(abs(gap.sum()) for gap in gaps) / len(scores))


def brier_score(targets: Targets, probabilities: Floats) -> float:
    """Squared distance from what is there, summed over classes (Brier 1950); of two, and of labels, of one.

    >>> round(brier_score(np.array([1, 0]), np.array([[0.1, 0.9], [0.6, 0.4]])), 4)
    0.085
    """
    if targets.ndim == 2:
        return float(np.square(probabilities - targets, dtype=np.float64).mean())
    there = targets[:, None] == np.arange(probabilities.shape[1])
    squares = np.square(probabilities - there, dtype=np.float64).sum(axis=1)  # (N,)
    return float(squares.mean() / (2 if probabilities.shape[1] == 2 else 1))


def log_loss(targets: Targets, probabilities: Floats) -> float:
    """Mean negative logarithm of what the truth was given, as `test/log_loss` is."""
    if targets.ndim == 2:
        chosen = np.where(targets > 0.5, probabilities, 1 - probabilities)
    else:
        chosen = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(chosen.astype(np.float64).clip(EPSILON, 1 - EPSILON)).mean())


def decisions(targets: Targets, probabilities: Floats, ranking: Floats) -> tuple[Floats, Floats]:
    """Whether each decision is wrong, and how sure it is: one an image, or one for each of its labels.

    `ranking` (N, C) is the probabilities themselves, or log odds.
    """
    if targets.ndim == 2:
        wrong = (probabilities > 0.5) != (targets > 0.5)
        even = 0.5 if ranking is probabilities else 0.0
        return wrong.ravel().astype(np.float64), np.abs(ranking - even).ravel()
    return (probabilities.argmax(axis=1) != targets).astype(np.float64), ranking.max(axis=1)


def risk_coverage(wrong: Floats, sure: Floats) -> tuple[Floats, Floats]:
    """The share of wrong decisions among the surest 1, 2 ... N (El-Yaniv and Wiener 2010).

    The mean of the risks is the area under their curve (AURC, Geifman et al. 2019). Among equally sure
    decisions any order is as likely, and the risk is that to be expected.

    Args:
        wrong: 0 or 1, (N,).
        sure: (N,), the larger the surer.

    Returns:
        Coverages and risks, (N,) each, as shares.

    >>> coverages, risks = risk_coverage(np.array([1.0, 0, 0, 1]), np.array([0.6, 0.7, 0.9, 0.8]))
    >>> coverages.tolist(), risks.round(3).tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.0, 0.5, 0.333, 0.5])
    """
    order = np.argsort(-sure, kind="stable")
    counts = np.arange(1, len(sure) + 1)
    return counts / len(sure), np.cumsum(mean_of_ties(wrong[order], sure[order])) / counts


def mean_of_ties(values: Floats, keys: Floats) -> Floats:
    """Each value (N,) replaced by the mean of those with the same key; equal keys (N,) are neighbours.

    >>> mean_of_ties(np.array([1.0, 0, 1]), np.array([0.5, 0.5, 0.7])).tolist()
    [0.5, 0.5, 1.0]
    """
    groups = np.cumsum(np.concatenate([[False], keys[1:] != keys[:-1]]))
    return np.asarray((np.bincount(groups, values) / np.bincount(groups))[groups])
