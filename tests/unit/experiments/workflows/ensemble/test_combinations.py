"""Combinations do with what members say what their formulas do."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.errors import RequestError
from darkroom.experiments.evaluation.stored_predictions import StoredPredictions
from darkroom.experiments.training.callbacks.weight_averaging import training_images
from darkroom.experiments.training.setup import prepare
from darkroom.experiments.workflows.ensemble.combination import greedy_weights, stacking
from darkroom.experiments.workflows.ensemble.members import EnsembleMember, probabilities_of
from darkroom.experiments.workflows.ensemble.model_soup import mix_soup


def of_probabilities(targets: np.ndarray, *said: np.ndarray) -> list[EnsembleMember]:
    """Members that said so of validation images."""
    ids = np.array([f"{place:03}" for place in range(len(targets))])
    names = tuple(f"class{label}" for label in range(said[0].shape[1]))
    run: Any = SimpleNamespace()
    return [
        EnsembleMember(
            run, (run,), {"val": StoredPredictions(ids, targets, each.astype(np.float32))}, names, {}
        )
        for each in said
    ]


def random_probabilities(images: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), images)


def test_greedy_selection_finds_the_weights_that_made_the_truth():
    said = np.stack([random_probabilities(50, 3, seed) for seed in range(4)], axis=1)
    truth = 0.5 * said[:, 0] + 0.3 * said[:, 2] + 0.2 * said[:, 3]
    weights = greedy_weights(said, lambda mean: (-float(((mean - truth) ** 2).sum()),))
    np.testing.assert_allclose(weights, [0.5, 0, 0.3, 0.2], atol=0.02)


def test_greedy_selection_takes_one_member_that_no_other_helps():
    said = np.array([[[1.0], [0.0], [0.0]]])
    assert greedy_weights(said, lambda mean: (mean.item(),)) == [1, 0, 0]


def test_stacking_of_two_classes_is_the_binary_regression():
    targets = np.arange(60) % 2
    members = of_probabilities(targets, *(random_probabilities(60, 2, seed) for seed in range(2)))
    features = np.hstack(
        [np.log(member.outcomes["val"].probabilities.astype(np.float64)) for member in members]
    )
    fitted = LogisticRegression(tol=1e-8, max_iter=5000).fit(features, targets)
    stacked = stacking(members, "accuracy")(probabilities_of(members, "val"))
    np.testing.assert_allclose(stacked.numpy(), fitted.predict_proba(features), atol=1e-5)


def test_stacking_refuses_labels_and_classes_it_can_not_learn():
    said = random_probabilities(9, 3, 0)
    with pytest.raises(RequestError, match="not labels"):
        stacking(of_probabilities(np.ones((9, 3), np.int64), said), "accuracy")
    with pytest.raises(RequestError, match="class class2 has none"):
        stacking(of_probabilities(np.arange(9) % 2, said), "accuracy")


@pytest.fixture
def checkpointed(tmp_path) -> Callable[[nn.Module, str], EnsembleMember]:
    """A member whose checkpoint holds a network's weights."""

    def write(network: nn.Module, name: str) -> EnsembleMember:
        state = {f"network.{key}": value.clone() for key, value in network.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 0}, tmp_path / name)
        run: Any = SimpleNamespace(download=lambda artifact: tmp_path / name)
        return EnsembleMember(run, (run,), {}, (), {})

    return write


def test_a_soup_has_the_mean_of_the_weights_and_statistics_of_its_own_activations(checkpointed):
    experiment = load_experiment(["digits/cnn"], {"model.backbone_options.widths": "[4]"})
    prepare(experiment)
    network = experiment.model.network
    states, members = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            nn.init.normal_(parameter)
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        members.append(checkpointed(network, f"{seed}.ckpt"))
    mix_soup(experiment, members)
    for name, parameter in network.named_parameters():
        expected = (states[0][name].numpy() + states[1][name].numpy()) / 2
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    convolution, pool, norm = network.features[:3]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        maps = [pool(convolution(images)) for images in training_images(experiment.data, torch.device("cpu"))]
    means = torch.stack([each.mean((0, 2, 3)) for each in maps]).mean(0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-4)
    assert not network.training


def test_a_soup_of_one_network_twice_is_that_network(checkpointed):
    experiment = load_experiment(["digits/cnn"], {"model.finetuning.strategy": "linear_probe"})
    prepare(experiment)
    network = experiment.model.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    mix_soup(experiment, [checkpointed(network, "a.ckpt"), checkpointed(network, "b.ckpt")])
    for name, value in network.state_dict().items():  # frozen norms keep their statistics
        torch.testing.assert_close(value, before[name], msg=name)
