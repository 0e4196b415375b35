"""Every class is drawn equally often, or few shards at a time; from the given generator alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from darkroom.datamodules.splitting.sampling import balancing_weights, mix_shards, weighted_order


def balanced_order(targets: Tensor, generator: torch.Generator) -> Tensor:
    return weighted_order(balancing_weights(targets), generator)


def test_each_class_is_drawn_equally_often_and_its_samples_too() -> None:
    targets = torch.tensor([3] * 9000 + [5] * 900 + [9] * 100)
    order = balanced_order(targets, torch.Generator().manual_seed(0))
    assert order.shape == (10000,)
    for label in (3, 5, 9):
        four_deviations = 4 * (1 / 3 * 2 / 3 / 10000) ** 0.5
        assert (targets[order] == label).double().mean().item() == pytest.approx(1 / 3, abs=four_deviations)
    times = torch.bincount(order, minlength=10000)[9900:].double()  # 33 each are expected
    assert times.min() > 8
    assert times.max() < 70


def test_the_rarest_label_gives_the_weight_and_none_is_a_class() -> None:
    # 600 with label 0, 50 with both, 350 with neither: weights 1/650, 1/50 and 1/350.
    targets = torch.tensor([[1, 0]] * 600 + [[1, 1]] * 50 + [[0, 0]] * 350).repeat(20, 1)
    drawn = targets[balanced_order(targets, torch.Generator().manual_seed(0))]
    total = 600 / 650 + 1 + 1
    for row, expected in (([1, 0], 600 / 650), ([1, 1], 1.0), ([0, 0], 1.0)):
        share = (drawn == torch.tensor(row)).all(dim=1).double().mean().item()
        assert share == pytest.approx(expected / total, abs=4 * (0.25 / 20000) ** 0.5)


def test_the_generator_alone_decides() -> None:
    targets = torch.arange(100) % 7
    torch.manual_seed(1)
    one = balanced_order(targets, torch.Generator().manual_seed(4))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(one, balanced_order(targets, torch.Generator().manual_seed(4)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one, balanced_order(targets, torch.Generator().manual_seed(5)))


def test_no_samples_give_no_order() -> None:
    assert balanced_order(torch.empty(0, dtype=torch.int64), torch.Generator()).tolist() == []


def test_few_shards_are_open_at_a_time_and_each_is_opened_once() -> None:
    shards = torch.arange(40).repeat_interleave(25)[torch.randperm(1000)]
    order = mix_shards(torch.randperm(1000), shards, 4, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(1000))
    windows = shards[order].view(40, 25)  # what one shard's worth of samples comes from
    assert all(4 <= len(window.unique()) <= 4 + 2 for window in windows)
    later = [set(window.tolist()) for window in windows]
    opened = [len(now - before) for before, now in pairwise(later)]
    assert sum(opened) <= 40 + 4  # the first ones come again at the end


def test_from_all_shards_at_once_an_order_is_as_random_as_without() -> None:
    shards = torch.arange(8).repeat_interleave(4)
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([mix_shards(torch.arange(32), shards, 99, generator) for _ in range(4000)])
    counts = torch.stack([torch.bincount(orders[:, place], minlength=32) for place in range(32)])
    statistic = float(((counts - 125) ** 2 / 125).sum())  # chi-squared with 31 * 31 degrees of freedom
    assert 961 - 4 * (2 * 961) ** 0.5 < statistic < 961 + 4 * (2 * 961) ** 0.5
    neighbours = (shards[orders[:, 1:]] == shards[orders[:, :-1]]).double().mean().item()
    assert neighbours == pytest.approx(3 / 31, abs=0.005)
