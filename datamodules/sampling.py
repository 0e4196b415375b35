"""The order in which an epoch visits its samples: each class equally often, or few shards at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_order(targets: Tensor, generator: torch.Generator) -> Tensor:
    """Draws as many samples as there are, with replacement, each class being equally likely.

    Of several labels, a sample's rarest gives its weight, one over that label's count; samples without
    any label count as a class of their own. Labels that occur together are then balanced only roughly.

    Args:
        targets: Class indices (N,), or labels (N, K) of 0 and 1.
        generator: What is drawn from, on the CPU.

    Returns:
        Indices of samples (N,), int64, on the CPU.

    >>> targets = torch.tensor([0] * 900 + [1] * 100)
    >>> order = balanced_order(targets, torch.Generator().manual_seed(0))
    >>> bool(abs(targets[order].float().mean() - 0.5) < 0.06)
    True
    """
    if len(targets) == 0:
        return torch.empty(0, dtype=torch.int64)
    return torch.multinomial(_weights(targets.cpu()), len(targets), replacement=True, generator=generator)


def _weights(targets: Tensor) -> Tensor:
    """One over the size of each sample's class, or of its rarest label (N,)."""
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
