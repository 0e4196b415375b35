"""Combines member predictions and builds the ensemble module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from darkroom.datamodules.base import ImageDataModule
from darkroom.lightning_modules.metrics.epoch_outputs import Predictions
from darkroom.lightning_modules.predictor import Combination, Ensemble, WeightedMean

from ...config.experiment import Experiment
from ...errors import RequestError
from ...evaluation.stored_predictions import StoredPredictions
from ...training.artifacts import build_predictor
from ...training.loop import evaluate
from .members import SPLITS, EnsembleMember, log_odds_of, probabilities_of
from .model_soup import mix_soup


@dataclass(frozen=True)
class Blend:
    """An ensemble.

    Attributes:
        predictions: Of the val and test images.
        metrics: As `val/accuracy` and `test/accuracy`.
        weights: Of the members; None where they have none.
        predictor: From uint8 images to probabilities.
    """

    predictions: Mapping[str, Predictions]
    metrics: Mapping[str, float]
    weights: tuple[float, ...] | None
    predictor: nn.Module


def vote(
    members: Sequence[EnsembleMember],
    experiment: Experiment,
    combination: Combination,
    places: Mapping[str, str],
) -> Blend:
    """Combines what the members said, and judges it on validation and test.

    The predictor is made of the members' networks, which compute in 32 bits: of members that were judged in
    16, what is recorded is off by as much as their own logged models are.

    Args:
        members: What is combined.
        experiment: One of them, with its data.
        combination: From the members' probabilities to the ensemble's.
        places: Keys that say where the images lie now.
    """
    weights = tuple(combination.weights.tolist()) if isinstance(combination, WeightedMean) else None
    predictions = {}
    for split in SPLITS:
        said = probabilities_of(members, split)
        log_odds = combination.log_odds(said, log_odds_of(members, split))
        predictions[split] = as_predictions(combination(said), log_odds, experiment.data, members, split)
    metrics: dict[str, float] = {}
    for split, each in predictions.items():
        values = experiment.model.task.metrics()(each.probabilities, each.targets, ranking=each.ranking)
        metrics |= {f"{split}/{name}": float(value) for name, value in values.items()}
    return Blend(predictions, metrics, weights, _predictor(members, combination, places))


def _predictor(
    members: Sequence[EnsembleMember], combination: Combination, places: Mapping[str, str]
) -> nn.Module:
    """The members' networks and what is made of them; without those that have no weight."""
    if not isinstance(combination, WeightedMean):
        return Ensemble([member.predictor(places) for member in members], combination)
    weighed = [
        (member, weight)
        for member, weight in zip(members, combination.weights.tolist(), strict=True)
        if weight
    ]
    remaining = type(combination)([weight for _, weight in weighed])
    return Ensemble([member.predictor(places) for member, _ in weighed], remaining)


def soup(members: Sequence[EnsembleMember], experiment: Experiment) -> Blend:
    """One network with the mean of the members' weights, judged as training judges networks."""
    mix_soup(experiment, members)
    judged = evaluate(experiment, SPLITS)
    weights = tuple([1 / len(members)] * len(members))
    return Blend(
        judged.predictions, judged.metrics, weights, build_predictor(experiment.data, experiment.model)
    )


# Predictions by id and by place -----------------------------------------------------------------


def as_predictions(
    probabilities: Tensor,
    log_odds: Tensor | None,
    data: ImageDataModule,
    members: Sequence[EnsembleMember],
    split: str,
) -> Predictions:
    """Probabilities and log odds (N, C) in the order of the members' ids, with the places of their images."""
    outcome = members[0].outcomes[split]
    places = {name: place for place, name in enumerate(data.splits[split].ids)}
    indices = torch.tensor([places[name] for name in outcome.ids.tolist()])
    return Predictions(probabilities, torch.from_numpy(outcome.targets), indices, log_odds)


def as_outcome(predictions: Predictions, data: ImageDataModule, split: str) -> StoredPredictions:
    """The other way round."""
    store, places = data.splits[split], predictions.indices.tolist()
    groups = None if store.groups is None else np.array([store.groups[place] for place in places], np.str_)
    return StoredPredictions(
        np.array([store.ids[place] for place in places], dtype=np.str_),
        predictions.targets.cpu().numpy().astype(np.int64),
        predictions.probabilities.cpu().float().numpy(),
        groups,
        data.group_column,
        None if predictions.log_odds is None else predictions.log_odds.cpu().numpy(),
    )


def check_images(data: ImageDataModule, member: EnsembleMember) -> None:
    """Checks that the data at hand is what the members judged.

    Raises:
        RequestError: It is other data.
    """
    for split in SPLITS:
        ids = set(data.splits[split].ids) if split in data.splits else set()
        if ids != set(member.outcomes[split].ids.tolist()):
            raise RequestError(
                f"the {split} images of the data at hand are not those that the members judged; "
                "--data.root=... says where those lie"
            )
    if data.source_fingerprints != member.fingerprints:
        raise RequestError(
            "the data at hand is other than the members' (by its fingerprint); --data.root=... says where "
            "theirs lies"
        )
