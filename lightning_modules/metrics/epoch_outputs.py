"""Outputs of an epoch, gathered over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

ROWS = ("logits", "targets", "indices")  # of outputs, what has a row for each image


@dataclass(frozen=True)
class Predictions:
    """What a network says of a split.

    Attributes:
        probabilities: Of each class or label, (N, C).
        targets: Class indices (N,), or labels (N, C).
        indices: Places of the images in the split, (N,).
        log_odds: Of each class or label, float32 (N, C), by which images are ranked; None where there are
            probabilities alone.
    """

    probabilities: Tensor
    targets: Tensor
    indices: Tensor
    log_odds: Tensor | None = None

    @property
    def ranking(self) -> Tensor:
        """What images are ranked by for each class or label, (N, C)."""
        return self.probabilities if self.log_odds is None else self.log_odds


@dataclass
class EpochOutputs:
    """Kept on the device until the epoch ends; metrics at each step would cost more than the step.

    Attributes:
        losses: Of each step, scaled so that their mean over all processes is that of the global batch.
        weights: By what each global batch's loss was divided: how many images it had, or the sum of their
            classes' weights.
        logits: (B, K) of each step.
        targets: Class indices (B,), or labels (B, K).
        indices: Places in the split (B,).
    """

    losses: list[Tensor] = field(default_factory=list)
    weights: list[Tensor | int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    indices: list[Tensor] = field(default_factory=list)

    def mean_loss(self) -> Tensor:
        """Over all images of all processes, however they were divided into steps; float32.

        Each step's loss counts by what it was divided by, so that what comes is the loss of them all at once.
        """
        losses = mean_over_ranks(torch.stack(self.losses).double())
        weights = self._weights(losses.device)
        return ((losses * weights).sum() / weights.sum()).float()

    def _weights(self, device: torch.device) -> Tensor:
        """The losses of all steps, float64 (S,)."""
        return torch.stack([torch.as_tensor(each, device=device).double() for each in self.weights])

    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, K), targets (N,) or (N, K), and places (N,) of all images, on every process alike.

        What several processes saw comes in the order of the places, as one process would have seen it
        in evaluation.
        """
        logits, targets, indices = map(torch.cat, (self.logits, self.targets, self.indices))
        if num_ranks() == 1:
            return logits, targets, indices
        indices, order = gather(indices).sort()
        return gather(logits)[order], gather(targets)[order], indices

    def packed(self) -> dict[str, Tensor]:
        """All of it, of all processes alike, in a few tensors for a checkpoint.

        Of R processes that took S steps with N images: losses and sizes (R, S), how many images each step
        had; weights (S,); logits (N, K), targets and indices, process after process and step after step.
        """
        losses = torch.stack(self.losses)
        sizes = torch.tensor([len(chunk) for chunk in self.targets], device=losses.device)
        rows = {name: torch.cat(getattr(self, name)) for name in ROWS}
        if num_ranks() > 1:
            losses, sizes = gather(losses), gather(sizes)
            rows = {name: gather(tensor) for name, tensor in rows.items()}
        steps = len(self.losses)
        shared = {"sizes": sizes.view(-1, steps), "weights": self._weights(losses.device)}
        return {"losses": losses.view(-1, steps), **shared, **rows}

    @classmethod
    def unpacked(cls, packed: Mapping[str, Tensor], rank: int, device: torch.device) -> EpochOutputs:
        """One process's part of what `packed` gave."""
        sizes: list[list[int]] = packed["sizes"].tolist()
        first = sum(map(sum, sizes[:rank]))
        places = slice(first, first + sum(sizes[rank]))
        rows = {name: list(torch.split(packed[name][places].to(device), sizes[rank])) for name in ROWS}
        # Checkpoints of record version 1 have no weights: each step counted as often as it had images.
        weights = packed.get("weights", packed["sizes"].sum(0).double())
        return cls(losses=list(packed["losses"][rank].to(device)), weights=list(weights), **rows)


def num_ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Gathers a tensor that all processes have in the same shape."""
    if num_ranks() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    return sum_over_ranks(values) / num_ranks()


def gather(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, rank after rank; n may differ between them."""
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(num_ranks())]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    counts = [int(length) for length in lengths]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
