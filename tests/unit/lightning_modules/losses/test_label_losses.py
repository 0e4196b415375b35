"""The loss of labels and of mixed targets, against their formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from darkroom.lightning_modules.losses.modules import BinaryCrossEntropy, CrossEntropy

LOGITS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 3
LABELS = (torch.rand(40, 4, generator=torch.Generator().manual_seed(1)) < 0.3).float()
SHARES = torch.rand(40, 4, generator=torch.Generator().manual_seed(2)).softmax(1)


def log_sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log1p(np.exp(-values))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [LABELS, SHARES], ids=["labels", "mixed"])
def test_each_label_is_a_sigmoid_of_its_own(smoothing: float, targets: torch.Tensor) -> None:
    soft = targets.double().numpy() * (1 - smoothing) + smoothing / 2
    z = LOGITS.double().numpy()
    expected = -(soft * log_sigmoid(z) + (1 - soft) * log_sigmoid(-z)).mean()
    assert BinaryCrossEntropy(smoothing)(LOGITS, targets).item() == pytest.approx(expected, rel=1e-5)


def test_a_smoothed_label_is_the_binary_tasks_smoothed_class() -> None:
    of_label = BinaryCrossEntropy(0.2)(LOGITS[:, :1], LABELS[:, :1])
    of_class = CrossEntropy(0.2)(LOGITS[:, :1], LABELS[:, 0].long())
    torch.testing.assert_close(of_label, of_class)


def test_presence_weighs_what_makes_it_as_heavy_as_absence() -> None:
    counts, num_images = [10, 50, 90, 0, 100], 100
    criterion = BinaryCrossEntropy()
    criterion.weigh_classes(counts, num_images)
    assert criterion.positive_weights is not None
    for weight, count in zip(criterion.positive_weights.tolist()[:3], counts[:3], strict=True):
        labels = np.repeat([1, 0], [count, num_images - count])
        absent, present = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
        assert weight == pytest.approx(present / absent)
    assert criterion.positive_weights.tolist()[3:] == [1, 1]

    logits, labels = LOGITS[:, :3], LABELS[:, :3]
    criterion.weigh_classes(counts[:3], num_images)
    z, y = logits.double().numpy(), labels.double().numpy()
    expected = -(np.array([9, 1, 1 / 9]) * y * log_sigmoid(z) + (1 - y) * log_sigmoid(-z)).mean()
    assert criterion(logits, labels).item() == pytest.approx(expected, rel=1e-5)
    assert criterion.state_dict() == {}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_classes_are_weighed_as_torch_weighs_probabilities(smoothing: float, weighted: bool) -> None:
    criterion = CrossEntropy(smoothing)
    weights = np.ones(4)
    if weighted:
        criterion.weigh_classes([100, 50, 25, 5])
        weights = 180 / (4 * np.array([100, 50, 25, 5]))
    soft = SHARES.double().numpy() * (1 - smoothing) + smoothing / 4
    z = LOGITS.double().numpy()
    log_probabilities = z - np.log(np.exp(z).sum(1, keepdims=True))
    expected = -(weights * soft * log_probabilities).sum(1).mean()
    assert criterion(LOGITS, SHARES).item() == pytest.approx(expected, rel=1e-5)
    assert criterion.weight(SHARES) == 40


def test_one_logit_takes_shares_of_two_classes() -> None:
    positive = SHARES[:, 0]
    shares = torch.stack([1 - positive, positive], dim=1)
    expected = F.binary_cross_entropy_with_logits(LOGITS[:, 0], positive)
    torch.testing.assert_close(CrossEntropy()(LOGITS[:, :1], shares), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_unmixed_shares_cost_what_their_classes_cost(smoothing: float) -> None:
    classes = torch.arange(40) % 4
    criterion = CrossEntropy(smoothing)
    torch.testing.assert_close(criterion(LOGITS, F.one_hot(classes).float()), criterion(LOGITS, classes))
