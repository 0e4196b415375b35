"""Sharpness-aware minimisation.

2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ..batch import TrainingBatch

NO_GRADIENT = 1e-12  # added to the gradient's norm, which may be 0


class SharpnessAware:
    """Gives each step of an optimizer the gradient at `w + rho g / |g|`, g being the gradient at weights w.

    Whatever a step's gradients are added up from, accumulated batches or several processes' shares, g is the
    sum, in which each image counts the same. For that the step's batches are kept until they were gone
    through a second time. What comes after, clipping and the optimizer itself, knows nothing of it, and
    nothing of it outlasts the step.

    Args:
        rho: The distance from the weights, in the Euclidean norm over all trained parameters.
    """

    def __init__(self, rho: float) -> None:
        self.rho = rho
        self._batches: list[TrainingBatch] = []
        self._is_nearby = False

    def has_seen(self, batch: TrainingBatch) -> bool:
        """Whether a training step goes through this batch for the second time; else it is kept for that."""
        if not self._is_nearby:
            self._batches.append(batch)
        return self._is_nearby

    def closure(
        self, module: pl.LightningModule, optimizer: Optimizer, first_pass: Callable[[], Any]
    ) -> Callable[[], Any]:
        """What an optimizer is to call in place of `first_pass`, Lightning's own closure.

        That completes the gradients at the weights; the loss that it returns is the one at the weights too.
        """

        @torch.enable_grad()
        def both_passes() -> Any:
            loss = first_pass()
            trained = [each for group in optimizer.param_groups for each in group["params"]]
            # What a forward pass moves, such as the statistics of batch norms, is to be that of the weights.
            with restored(module.buffers()), self._nearby(trained):
                optimizer.zero_grad()
                self._second_pass(module.trainer, optimizer)
            self._batches.clear()
            return loss

        return both_passes

    def _second_pass(self, trainer: pl.Trainer, optimizer: Optimizer) -> None:
        # As Lightning itself goes through a batch: at the trainer's precision, on all its devices.
        for batch in self._batches:
            loss = trainer.strategy.training_step(batch, 0)
            assert isinstance(loss, Tensor)
            trainer.strategy.backward(loss / trainer.accumulate_grad_batches, optimizer)

    @contextmanager
    def _nearby(self, parameters: Iterable[Tensor]) -> Iterator[None]:
        """Moves those that have gradients by rho along them; afterwards they are as before, to the bit."""
        moved = [each for each in parameters if each.grad is not None]
        with restored(moved):
            move(moved, self.rho)
            self._is_nearby = True
            try:
                yield
            finally:
                self._is_nearby = False


@torch.no_grad()
def move(parameters: list[Tensor], distance: float) -> None:
    """Moves all parameters together that far up the slope of their gradients."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    scale = distance / (get_total_norm(gradients) + NO_GRADIENT)
    torch._foreach_add_(parameters, torch._foreach_mul(gradients, scale))


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Whatever happens inside, tensors are as before when it is over."""
    kept = [(each, each.detach().clone()) for each in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for each, before in kept:
                each.copy_(before)
