"""Weight averaging over runs (model soup).

2022).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...config.experiment import Experiment
from ...config.hardware_defaults import trains_on_gpu
from ...errors import RequestError
from ...tracking.run import RunRecord
from ...training.callbacks.checkpoints import read_checkpoint
from ...training.callbacks.weight_averaging import remeasure, training_images
from .members import EnsembleMember

PREFIX = "network."  # of a checkpoint's weights, apart from those of losses and metrics
TRAINED = 2**31  # an epoch in which everything is trained that ever is
ARCHITECTURE = ("model.backbone", "model.backbone_options", "data.image_size", "data.normalization")


def check_soup(members: Sequence[EnsembleMember]) -> None:
    """Checks that the members' weights have a mean: the networks are built alike and see images alike.

    Raises:
        RequestError: They don't.
    """
    if members[0].is_folded:
        raise RequestError(
            "a soup is the mean of networks that trained on the same images, which a cross-validation's did "
            "not: give single runs, or take another method"
        )
    for run in (member.run for member in members):
        if run.params.get("model.finetuning.strategy") == "lora":
            raise RequestError(
                f"a soup is the mean of weights, and run {run.run_id[:8]} ({run.name}) has products of them: "
                "the product of LoRA's mean matrices is not the mean of their products; soft_voting takes "
                "any networks"
            )
    first = members[0].run
    seen = _read_by(first)
    for other in (member.run for member in members[1:]):
        keys = [
            key
            for key in first.params.keys() | other.params.keys()
            if key.startswith(ARCHITECTURE) and first.params.get(key) != other.params.get(key)
        ]
        named = f"{first.run_id[:8]} ({first.name}) and {other.run_id[:8]} ({other.name})"
        if keys:
            key = min(keys)
            raise RequestError(
                f"a soup is the mean of networks of one architecture, but of runs {named} {key} is "
                f"{first.params.get(key)} and {other.params.get(key)}; soft_voting takes any networks"
            )
        if _read_by(other) != seen:
            raise RequestError(
                f"a soup needs networks that see images alike, but runs {named} normalise them by other "
                "means and standard deviations, as of other training images; soft_voting takes any networks"
            )


def _read_by(run: RunRecord) -> list[Any]:
    """How a run's network sees images: mean and standard deviation of each channel."""
    facts = json.loads(run.read_text("data/facts.json"))
    return [facts["pixel_mean"], facts["pixel_std"]]


def mix_soup(experiment: Experiment, members: Sequence[EnsembleMember]) -> None:
    """Gives the experiment's network the mean of the members' weights.

    Batch-norm's statistics are measured anew on the training images: those of other weights' activations
    say nothing of the mean's. Norms that training left alone keep theirs.
    """
    network, data = experiment.model.network, experiment.data
    network.load_state_dict(mean_of([_weights(member.run) for member in members]))
    device = torch.device("cuda" if trains_on_gpu(experiment.trainer.accelerator) else "cpu")
    trained = copy.deepcopy(network).train()
    experiment.model.finetuning.apply(trained, TRAINED)
    data.preprocess.to(device)
    remeasure(network.to(device), trained, training_images(data, device))


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts; of counts and indices, which have none, the first's.

    >>> mean_of([{"w": torch.tensor([1.0]), "n": torch.tensor(3)}, {"w": torch.tensor([2.0])}])
    {'w': tensor([1.5000]), 'n': tensor(3)}
    """
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


def _weights(run: RunRecord) -> dict[str, Tensor]:
    """Reads the weights of a run's chosen checkpoint."""
    state: dict[str, Tensor] = read_checkpoint(run.download("checkpoints/best.ckpt"))["state_dict"]
    return {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
