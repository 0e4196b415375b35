"""The order in which an epoch visits its samples: drawn by weights, or few shards at a time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Sampling = Literal["shuffled", "balanced"]


def weighted_order(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draws as many samples as there are, with replacement, each in proportion to its weight.

    Args:
        weights: Of N samples, at least 0.
        generator: What is drawn from, on the CPU.

    Returns:
        Indices of samples (N,), int64, on the CPU.

    >>> order = weighted_order(torch.tensor([0.0] * 500 + [1.0] * 500), torch.Generator().manual_seed(0))
    >>> len(order), bool((order >= 500).all())
    (1000, True)
    """
    if len(weights) == 0:
        return torch.empty(0, dtype=torch.int64)
    return torch.multinomial(weights, len(weights), replacement=True, generator=generator)


def balancing_weights(targets: Tensor) -> Tensor:
    """Weights (N,) by which each class is equally likely: one over the size of each sample's class.

    Of several labels, a sample's rarest gives its weight, one over that label's count; samples without
    any label count as a class of their own. Labels that occur together are then balanced only roughly.

    Args:
        targets: Class indices (N,), or labels (N, K) of 0 and 1.

    >>> balancing_weights(torch.tensor([0, 1, 1])).tolist()
    [1.0, 0.5, 0.5]
    """
    if targets.ndim == 1:
        return 1 / torch.bincount(targets)[targets].double()
    positive = targets.bool()  # (N, K)
    without = ~positive.any(dim=1, keepdim=True)  # (N, 1)
    columns = torch.cat([positive, without], dim=1)  # (N, K + 1)
    return (columns / columns.sum(0).clamp(min=1).double()).amax(dim=1)


def mix_shards(order: Tensor, shards: Tensor, at_once: int, generator: torch.Generator) -> Tensor:
    """Arranges an order so that shards are opened and left one by one, in an order drawn anew.

    Each shard has a time, from which its samples are spread over those of the next `at_once`; the end goes
    round to the beginning, so that all batches are mixed alike. From all shards at once the order is as
    random as one without shards.

    Args:
        order: Indices of samples (M,), some perhaps repeatedly.
        shards: In which shard each sample lies, int64 (N,).
        at_once: From how many shards samples are mixed.
        generator: What is drawn from, on the CPU.

    Returns:
        The same indices (M,).

    >>> shards = torch.tensor([0, 0, 1, 1, 2, 2])
    >>> shards[mix_shards(torch.arange(6), shards, 1, torch.Generator().manual_seed(0))].tolist()
    [1, 1, 2, 2, 0, 0]
    """
    count = int(shards.max()) + 1
    times = torch.randperm(count, generator=generator)[shards[order]]
    spread = torch.rand(len(order), generator=generator, dtype=torch.float64)
    return order[((times + min(at_once, count) * spread) % count).argsort(stable=True)]
