"""Batches of data that fits in memory: slices of a permutation, in the process that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.randomness import derive_seed, generator_for
from datamodules.store import ImageStore


class Batch(NamedTuple):
    """What a step gets.

    Attributes:
        images: (B, C, H, W); uint8 from the loader, float32 once augmented and normalised. Where a
            device's share of the global batch is empty, one image that has no target: networks can't
            take none, and every process has to take part in every step.
        targets: Class indices, int64 (B,).
        indices: Places in the split, int64 (B,); its `ids` names them.
        seed: Of all randomness of this step, derived from (seed, epoch, step), and from the rank where
            it is not 0.
        global_targets: Of the global batch that this is a share of; None where it is the whole.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    seed: int
    global_targets: Tensor | None = None


class BatchLoader:
    """An iterable over a store, without worker processes and without padding.

    The epoch's order depends on (seed, epoch) alone. Where it stands is `state_dict`, which Lightning
    saves in its checkpoints: a resumed run sees the very batches it would have seen. Without shuffling
    every iteration starts at the first batch, whatever the last one left.

    Processes that train together share out each global batch, so that all of them make the same number
    of steps and every image is seen once: padding would count some twice.

    Args:
        store: The split to serve.
        batch_size: Images in each global batch; the last may be smaller.
        shuffle: Permute anew each epoch.
        seed: Of the permutations and of each batch's `seed`.
        rank: Which share of each batch this process gets.
        world_size: How many processes share it.
    """

    def __init__(
        self,
        store: ImageStore,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.store = store
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._epoch = 0
        self._step = 0

    def __len__(self) -> int:
        return -(-len(self.store) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # Lightning asks for the iterator early and drops it before its end: the epoch is read when
        # the first batch is, and has moved on before the last one is handed out.
        # Evaluation may stop early (limit_val_batches), and must not go on from there the next time.
        epoch, first_step = self._epoch, self._step if self.shuffle else 0
        order = self._order(epoch)
        chunks = torch.split(order, self.batch_size)
        for step, chunk in enumerate(chunks[first_step:], start=first_step):
            self._epoch, self._step = (epoch, step + 1) if step + 1 < len(chunks) else (epoch + 1, 0)
            yield self._share(chunk, epoch, step)

    def _share(self, chunk: Tensor, epoch: int, step: int) -> Batch:
        indices = chunk[self.rank :: self.world_size]
        return Batch(
            images=self.store.images[indices if len(indices) else chunk[:1]],
            targets=self.store.targets[indices],
            indices=indices,
            seed=derive_seed(self.seed, epoch, step, *([self.rank] if self.rank else [])),
            global_targets=self.store.targets[chunk] if self.world_size > 1 else None,
        )

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.store))
        return torch.randperm(len(self.store), generator=generator_for("cpu", self.seed, epoch))

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch, self._step = state_dict["epoch"], state_dict["step"]
