"""Gradient accumulation that gives each image the same weight."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

Weight = Tensor | int  # what the losses of a batch's images were divided by: see `weight` of the losses


class Accumulation:
    """Makes the gradient of a step the mean over its images, however they are divided into batches.

    Lightning divides each batch's loss by the configured number of batches. That is the mean over images only
    where the step has so many batches, all of one size, and where the loss weighs no classes. Here each
    batch's loss is multiplied by its weight over the first batch's, and the complete gradient by what is
    missing. With equal batches both factors are 1, and nothing is multiplied. A step of one batch needs
    none of this.

    Attributes:
        correction: By what the latest step's gradient was multiplied.
    """

    def __init__(self) -> None:
        self.correction = 1.0
        self._first: Weight = 0  # of the step's batches
        self._total: Weight = 0

    def weighted(self, loss: Tensor, weight: Weight, *, begins: bool, again: bool) -> Tensor:
        """The loss to differentiate.

        Args:
            loss: Of a batch, a mean by that weight.
            weight: Of the batch, of all processes that share it.
            begins: The batch is the first of its step.
            again: The step has had this batch, and goes through it a second time.
        """
        if begins and not again:
            self._first, self._total = weight, 0
        if not again:
            self._total = self._total + weight
        return loss if _same(weight, self._first) else loss * (weight / self._first)

    @torch.no_grad()
    def complete(self, optimizer: Optimizer, num_batches: int) -> None:
        """Multiplies the gradient of a whole step.

        Args:
            optimizer: Whose parameters have it, no longer scaled for 16 bits.
            num_batches: By which each batch's loss was divided.
        """
        self.correction = float(num_batches * self._first / self._total)
        if self.correction == 1:
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.correction)


def _same(weight: Weight, other: Weight) -> bool:
    """Whether they are equal numbers; of tensors, which may lie on a GPU, only whether they are one."""
    return weight is other or (isinstance(weight, int) and isinstance(other, int) and weight == other)
