"""The members of an ensemble: recorded runs that judged the same images, with what they said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darkroom.lightning_modules.metrics.names import is_minimized
from darkroom.lightning_modules.predictor import Ensemble, WeightedMean
from darkroom.lightning_modules.task import build_task

from ...errors import RequestError, nearest
from ...evaluation.bootstrap import image_scores, measure
from ...evaluation.stored_predictions import StoredPredictions
from ...tracking.prediction_artifacts import read_outcome
from ...tracking.run import RunRecord
from ...tracking.run_selection import left_out, usable
from ...training.artifacts import build_predictor
from ...training.restore import restore
from .cross_validated import FoldRuns, mean_outcome

SPLITS = ("val", "test")  # fitted on, and judged on once


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """One run with what it said.

    Attributes:
        run: As it is recorded.
        networks: The runs whose networks' mean it is: itself, or of a cross-validation its folds.
        outcomes: Of its val and its test images, in the order of their ids. Of a cross-validation val are
            all training images, each judged by the one network that had not trained on it.
        class_names: Of the data.
        fingerprints: Of the data's parts, such as train and test.
    """

    run: RunRecord
    networks: tuple[RunRecord, ...]
    outcomes: Mapping[str, StoredPredictions]
    class_names: tuple[str, ...]
    fingerprints: Mapping[str, str]

    @property
    def is_folded(self) -> bool:
        """Whether it is a cross-validation."""
        return len(self.networks) > 1

    @property
    def params(self) -> dict[str, str]:
        """The parameters that its networks have in common."""
        return common_params([run.params for run in self.networks])

    @property
    def num_parameters(self) -> int:
        """The number of parameters of all its networks."""
        return sum(int(run.params["num_parameters"]) for run in self.networks)

    def predictor(self, places: Mapping[str, str]) -> nn.Module:
        """Builds the module from uint8 images to probabilities, from its networks' records.

        The logged models would do, too, but a file that stands in for one of them can execute code when it is
        loaded; configuration and checkpoint are read as data.

        Args:
            places: Keys that say where the images lie now.
        """
        models: list[nn.Module] = []
        for run in self.networks:
            restored = restore(run, places)
            models.append(build_predictor(restored.data, restored.model))
        return (
            Ensemble(models, WeightedMean([1 / len(models)] * len(models))) if self.is_folded else models[0]
        )


def common_params(params: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all have with the same value.

    >>> common_params([{"seed": "0", "lr": "1"}, {"seed": "1", "lr": "1"}])
    {'lr': '1'}
    """
    return dict(set.intersection(*(set(each.items()) for each in params)))


def trained_runs(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The runs that are one trained network each, and a word on each kind of the others."""
    finished, notes = usable(runs)
    ensembles = [run for run in finished if run.tags.get("role") == "ensemble"]
    notes += [left_out(ensembles, "were made of others")] if ensembles else []
    return [run for run in finished if run not in ensembles], notes


def read_members(runs: Sequence[RunRecord], folds: FoldRuns | None = None) -> list[EnsembleMember]:
    """What all of them said, in the order of the runs.

    Args:
        runs: One for each member.
        folds: Of those that are cross-validations, by run id.

    Raises:
        RequestError: They are fewer than two, one recorded no predictions, or they judged other images.
    """
    if len(runs) < 2:
        raise RequestError(
            f"an ensemble needs at least two finished runs, got {len(runs)}; "
            "darkroom ui shows what is recorded"
        )
    folded = [run for run in runs if run.run_id in (folds or {})]
    if 0 < len(folded) < len(runs):
        raise RequestError(
            f"run {folded[0].run_id[:8]} ({folded[0].name}) is a cross-validation, which judged all training "
            "images, and others judged the validation images alone: give members of one kind"
        )
    members = [_read_member(run, tuple((folds or {}).get(run.run_id, (run,)))) for run in runs]
    for other in members[1:]:
        check_alike(members[0], other)
    return members


def _read_member(run: RunRecord, networks: tuple[RunRecord, ...]) -> EnsembleMember:
    try:
        tested = [in_order(read_outcome(network, "test")) for network in networks]
        outcomes = {"val": in_order(read_outcome(run, "val")), "test": mean_outcome(tested)}
        facts: dict[str, Any] = json.loads(networks[0].read_text("data/facts.json"))
    except RequestError as error:
        raise RequestError(
            f"run {run.run_id[:8]} ({run.name}) lacks predictions of validation or of test images: "
            "weights are fitted on the one and judged on the other. Trials of a sweep never saw the "
            "test: train their configurations with darkroom train"
        ) from error
    return EnsembleMember(run, networks, outcomes, tuple(facts["class_names"]), facts["fingerprint"])


def in_order(outcome: StoredPredictions) -> StoredPredictions:
    """The same, by ids."""
    return outcome.at(np.argsort(outcome.ids))


def check_alike(one: EnsembleMember, other: EnsembleMember) -> None:
    """Checks that both know the same classes and judged the same images.

    Raises:
        RequestError: They don't.
    """
    differing = _difference(one, other)
    if differing is not None:
        raise RequestError(
            f"members of an ensemble must know the same classes and judge the same images, but runs "
            f"{one.run.run_id[:8]} ({one.run.name}) and {other.run.run_id[:8]} ({other.run.name}) {differing}"
        )


def _difference(one: EnsembleMember, other: EnsembleMember) -> str | None:
    if one.class_names != other.class_names:
        return f"know {', '.join(one.class_names)} and {', '.join(other.class_names)}"
    for split, name in zip(SPLITS, ("validation", "test"), strict=True):
        ours, theirs = one.outcomes[split], other.outcomes[split]
        if not np.array_equal(ours.ids, theirs.ids):
            common = len(np.intersect1d(ours.ids, theirs.ids))
            return (
                f"have {len(ours.ids)} and {len(theirs.ids)} {name} images, {common} of them in common; give "
                "runs with the same data.split_seed, fractions and fold"
            )
        if not np.array_equal(ours.targets, theirs.targets):
            return f"disagree about the labels of {name} images"
    for part in sorted(one.fingerprints.keys() | other.fingerprints.keys()):
        if one.fingerprints.get(part) != other.fingerprints.get(part):
            return f"were made with other {part} data, by its fingerprint"
    return None


def probabilities_of(members: Sequence[EnsembleMember], split: str) -> Tensor:
    """What all of them said of a split's N images, float32 (N, M, C)."""
    return torch.from_numpy(np.stack([member.outcomes[split].probabilities for member in members], axis=1))


def log_odds_of(members: Sequence[EnsembleMember], split: str) -> Tensor | None:
    """The log odds of all of them, float32 (N, M, C); None where one recorded none."""
    known = [member.outcomes[split].log_odds for member in members]
    found = [each for each in known if each is not None]
    return torch.from_numpy(np.stack(found, axis=1)) if len(found) == len(known) else None


# How good they are -------------------------------------------------------------------------------


def chosen_metric(name: str | None, outcome: StoredPredictions) -> str:
    """The metric that was asked for, else the one that one looks at first.

    Raises:
        RequestError: Predictions don't tell it.
    """
    task = build_task(outcome.probabilities.shape[1], outcome.task)
    known = [metric for metric in task.metric_names if metric != "loss"]
    if name is not None and name not in known:
        raise RequestError(f"--metric: there is no {name} of predictions; {nearest(name, known)}")
    return name or task.headline


def score(outcome: StoredPredictions, metric: str) -> float:
    """The metric over all images of an outcome."""
    scores = image_scores(outcome, metric)
    if scores is not None:
        return float(scores.mean())
    value = measure(outcome, metric)
    assert value is not None  # `chosen_metric` has looked
    return value(outcome, np.arange(len(outcome.ids)))


def goodness(outcome: StoredPredictions, metric: str) -> tuple[float, float]:
    """What is larger for what is better; where few images make many ties, by log loss then."""
    sign = -1 if is_minimized(metric) else 1
    return sign * score(outcome, metric), -score(outcome, "log_loss")


def best_on_validation(members: Sequence[EnsembleMember], metric: str) -> EnsembleMember:
    return max(members, key=lambda member: goodness(member.outcomes["val"], metric))
