"""Losses and penalties, against their formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from darkroom.lightning_modules.losses.modules import CrossEntropy, weight_penalty
from darkroom.lightning_modules.task import to_probabilities

LOGITS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 3
TARGETS = torch.randint(4, (40,), generator=torch.Generator().manual_seed(1))
COUNTS = [100, 50, 25, 5]
SMOOTHINGS = [0.0, 0.1, 0.5]


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_cross_entropy_spreads_the_smoothed_share_over_all_classes(smoothing: float) -> None:
    soft = np.eye(4)[TARGETS.numpy()] * (1 - smoothing) + smoothing / 4
    expected = -(soft * log_softmax(LOGITS.double().numpy())).sum(1).mean()
    assert CrossEntropy(smoothing)(LOGITS, TARGETS).item() == pytest.approx(expected, rel=1e-5)


def test_class_weights_are_scikit_learns_balanced_and_average_by_weight() -> None:
    labels = np.repeat(np.arange(4), COUNTS)
    weights = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    criterion = CrossEntropy()
    criterion.weigh_classes(COUNTS)
    assert criterion.class_weights is not None
    np.testing.assert_allclose(criterion.class_weights.numpy(), weights, rtol=1e-6)

    truth = TARGETS.numpy()
    losses = -log_softmax(LOGITS.double().numpy())[np.arange(40), truth]
    expected = np.average(losses, weights=weights[truth])
    assert criterion(LOGITS, TARGETS).item() == pytest.approx(expected, rel=1e-5)


def test_an_empty_class_weighs_nothing() -> None:
    criterion = CrossEntropy()
    criterion.weigh_classes([10, 0, 30])
    assert criterion.class_weights is not None
    assert criterion.class_weights.tolist() == pytest.approx([40 / 30, 0, 40 / 90])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_one_logit_is_two_logits_of_which_the_first_is_zero(smoothing: float, weighted: bool) -> None:
    criterion = CrossEntropy(smoothing)
    if weighted:
        criterion.weigh_classes([90, 10])
    logits = (LOGITS[:, :1] * 5).requires_grad_()
    targets = TARGETS % 2
    loss = criterion(logits, targets)
    two = torch.cat([torch.zeros(40, 1), logits], dim=1)
    weight = torch.tensor([100 / 180, 100 / 20]) if weighted else None
    expected = F.cross_entropy(two, targets, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_one_logit_is_binary_cross_entropy() -> None:
    logits = torch.tensor([[0.3], [-2.0], [80.0], [-90.0]])
    targets = torch.tensor([1, 0, 0, 1])
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], targets.float())
    torch.testing.assert_close(CrossEntropy()(logits, targets), expected)


def test_class_weights_stay_out_of_the_state() -> None:
    criterion = CrossEntropy()
    criterion.weigh_classes(COUNTS)
    assert criterion.state_dict() == {}


def test_probabilities_sum_to_one_and_are_softmax_or_sigmoid() -> None:
    many = to_probabilities(LOGITS)
    torch.testing.assert_close(many.sum(1), torch.ones(40))
    np.testing.assert_allclose(many.numpy(), np.exp(log_softmax(LOGITS.double().numpy())), atol=1e-6)

    logits = torch.tensor([[0.0], [2.0], [-200.0], [200.0]])
    two = to_probabilities(logits)
    assert two.sum(1).tolist() == [1] * 4
    np.testing.assert_allclose(two[:, 1].numpy(), [0.5, 1 / (1 + np.exp(-2)), 0, 1], atol=1e-6)


def test_the_penalty_is_the_sum_over_weights_and_spares_biases_and_norms() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3), nn.LayerNorm(3)
    )
    for parameter in network.parameters():
        nn.init.constant_(parameter, 100.0)
    with torch.no_grad():
        network[0].weight.copy_(torch.arange(-9.0, 9).view(2, 1, 3, 3))  # type: ignore[operator]
        network[3].weight.copy_(torch.tensor([[1.0, -2], [3, -4], [5, -6]]))  # type: ignore[operator]

    def penalty(l1: float, l2: float) -> float:
        return weight_penalty(network, l1, l2).item()

    absolute = 9 + 2 * sum(range(9)) + 21  # -9 stands alone; 1 to 8 come with both signs
    squared = 81 + 2 * sum(i * i for i in range(9)) + 91
    assert penalty(0.1, 0.0) == pytest.approx(0.1 * absolute)
    assert penalty(0.0, 0.01) == pytest.approx(0.01 * squared)
    assert penalty(0.1, 0.01) == pytest.approx(0.1 * absolute + 0.01 * squared)
    assert weight_penalty(network, 0.0, 0.0) == 0


def test_the_penaltys_gradient_is_sign_and_twice_the_weight() -> None:
    layer = nn.Linear(3, 2)
    weight_penalty(layer, 0.5, 0.25).backward()
    torch.testing.assert_close(layer.weight.grad, 0.5 * layer.weight.sign() + 0.5 * layer.weight)
    assert layer.bias.grad is None
