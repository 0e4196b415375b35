"""Sampling order and sample weights."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
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


def read_sample_weights(path: Path, ids: Sequence[str]) -> Tensor:
    """The weights of images, float64 (N,), from a table with the columns `id` and `weight`.

    Args:
        path: CSV or Parquet; rows of other images are passed over.
        ids: Of N images, some perhaps repeatedly.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such table, an image has no weight or two, or the weights are invalid.
    """
    asked = f"data.sample_weights={path}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{asked}: there is no such file; expected a CSV or Parquet with id and weight"
        )
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={"id": str})
    except (ValueError, OSError) as error:  # as both readers raise of what they can't read
        raise ValueError(f"{asked} can't be read as CSV or Parquet: {error}") from error
    if missing := [name for name in ("id", "weight") if name not in frame]:
        raise ValueError(f"{asked} has no column {missing[0]}; it has {', '.join(map(str, frame.columns))}")
    if (repeated := frame["id"][frame["id"].duplicated()]).size:
        raise ValueError(f"{asked} gives {repeated.iloc[0]} more than one weight; give it one")
    by_id = dict(zip(frame["id"], pd.to_numeric(frame["weight"], errors="coerce"), strict=True))
    for name in ids:  # a table from another system may have accents in the other Unicode form
        if name not in by_id and not name.isascii():
            forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
            if there := [form for form in forms if form in by_id]:
                by_id[name] = by_id[there[0]]
    if unknown := [name for name in ids if name not in by_id]:
        raise ValueError(
            f"{asked} has no weight for {len(unknown)} of {len(ids)} training images, such as {unknown[0]}; "
            f"ids are as in data/split.parquet of a recorded run"
        )
    weights = torch.tensor([by_id[name] for name in ids], dtype=torch.float64)
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        worst = ids[int((~(weights.isfinite() & (weights >= 0))).nonzero()[0])]
        raise ValueError(f"{asked}: weights must be numbers of at least 0, {worst} has {by_id[worst]}")
    if not bool(weights.any()):
        raise ValueError(f"{asked}: all training images have a weight of 0; nothing would be trained on")
    return weights
