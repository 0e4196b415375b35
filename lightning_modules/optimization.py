"""Optimizers and learning-rate schedules by timm's names."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

Schedule = Literal["constant", "cosine", "plateau", "poly", "step", "tanh"]


@cache
def optimizer_names() -> tuple[str, ...]:
    """Every name that `build_optimizer` takes."""
    return tuple(str(name) for name in list_optimizers())


def build_optimizer(
    network: nn.Module, name: str, lr: float, weight_decay: float, options: dict[str, Any]
) -> Optimizer:
    """The optimizer over all trainable parameters; momentum is 0.9 where there is one.

    Biases and norms are not decayed (He et al. 2019, section 3.1).
    """
    optimizer: Optimizer = create_optimizer_v2(network, opt=name, lr=lr, weight_decay=weight_decay, **options)
    return optimizer


def build_schedule(
    optimizer: Optimizer, name: Schedule, *, max_epochs: int, warmup_epochs: int, steps_per_epoch: int
) -> Scheduler | None:
    """The schedule, moving at each step; None for a constant rate without warm-up.

    "cosine", "poly" and "tanh" fall to zero at the end; "step" divides by ten after each third of
    the epochs; "plateau" does so after five epochs without improvement, and moves at epoch ends.
    """
    if name == "constant":
        if warmup_epochs == 0:
            return None
        name, decay_epochs = "step", max_epochs + 1  # warm-up, then a step that never comes
    else:
        decay_epochs = max(1, -(-max_epochs // 3))
    scheduler: Scheduler
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=name,
        num_epochs=max_epochs,
        decay_epochs=decay_epochs,
        patience_epochs=5,
        plateau_mode="min",
        min_lr=0.0,
        warmup_epochs=warmup_epochs,
        warmup_lr=0.0,
        step_on_epochs=name == "plateau",
        updates_per_epoch=steps_per_epoch,
    )
    return scheduler
