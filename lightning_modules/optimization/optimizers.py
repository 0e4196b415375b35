"""Optimizers and schedules by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal

from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import MultiStepLRScheduler, create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .finetuning import FineTuning

Schedule = Literal["constant", "cosine", "multistep", "plateau", "poly", "step", "tanh"]
MULTISTEP: dict[str, Any] = {"milestones": (0.5, 0.75), "gamma": 0.1}  # as He et al. 2015 have it for CIFAR
# Parts of the names of those that fail, or take other steps, where each process has a share of the weights
# (timm 1.0 on PyTorch's DTensor); and so do all that are cautious (Liang et al. 2024).
WHOLE_ALONE = ("adafactor", "adamp", "kron", "mars", "muon", "novograd", "sgdp")


class Plateau(Scheduler):
    """A tenth of the rate when the loss has not fallen for more than five epochs, after a warm-up.

    timm's own, which is deprecated, forgets when a run is resumed how long it has waited, and warms up
    by whole epochs, the first of them at a rate of zero.
    """

    def __init__(self, optimizer: Optimizer, warmup_epochs: int, steps_per_epoch: int) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=False)
        self.warmup_epochs = warmup_epochs
        self.warmup_steps = warmup_epochs * steps_per_epoch
        self.plateau = ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=5)
        self.step_update(0)

    def step(self, epoch: int, metric: Any = None) -> None:
        if epoch > self.warmup_epochs:
            self.plateau.step(metric)

    def step_update(self, num_updates: int, metric: Any = None) -> None:
        if num_updates <= self.warmup_steps and self.warmup_steps > 0:
            self.update_groups([rate * num_updates / self.warmup_steps for rate in self.base_values])

    def _get_lr(self, t: int) -> list[float]:
        raise NotImplementedError  # the rate depends on losses, not on time alone

    def state_dict(self) -> dict[str, Any]:
        return self.plateau.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.plateau.load_state_dict(state_dict)


@cache
def optimizer_names() -> tuple[str, ...]:
    """Every name that `build_optimizer` takes."""
    return tuple(str(name) for name in list_optimizers())


def needs_second_derivatives(name: str) -> bool:
    """Whether the optimizer looks at the loss's curvature: its gradients must have gradients."""
    return bool(get_optimizer_info(name.lower()).second_order)


def shares_out(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the optimizer can train weights of which each process has a share.

    >>> shares_out("adamw", {}), shares_out("adamw", {"caution": True}), shares_out("adafactor", {})
    (True, False, False)
    """
    defaults = get_optimizer_info(name.lower()).defaults or {}
    if any(part in name.lower() for part in WHOLE_ALONE):
        return False
    return not {**defaults, **options}.get("caution", False)


def build_optimizer(
    network: nn.Module,
    name: str,
    lr: float,
    weight_decay: float,
    options: dict[str, Any],
    finetuning: FineTuning = FineTuning(),  # noqa: B008 (frozen)
) -> Optimizer:
    """The optimizer over all parameters that are trained at some time; momentum is 0.9 where there is one.

    Biases and norms are not decayed (He et al. 2019, section 3.1). As timm names them, "sgd" has
    Nesterov's momentum and "momentum" the plain one.

    Raises:
        ValueError: The optimizer does not take the options, or is not available on this machine.
    """
    parameters: nn.Module | list[dict[str, Any]] = network
    if finetuning != FineTuning():
        parameters = finetuning.parameter_groups(network, lr, weight_decay)
    try:
        optimizer: Optimizer = create_optimizer_v2(
            parameters, opt=name, lr=lr, weight_decay=weight_decay, **options
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ValueError(f"model.optimizer={name} can't be made with {options}: {error}") from error
    return optimizer


def check_schedule(name: Schedule, options: Mapping[str, Any] | None) -> None:
    """Refuses options that the schedule does not have, or could not follow.

    Raises:
        ValueError: One of the options is refused.
    """
    known = MULTISTEP if name == "multistep" else {}
    for option in options or {}:
        if option not in known:
            raise ValueError(
                f"model.schedule={name} has no option {option}; it takes {', '.join(known) or 'none'}"
            )
    milestones, gamma = (MULTISTEP | dict(options or {})).values()
    listed = milestones if isinstance(milestones, list | tuple) else ()
    numbers = [each for each in listed if isinstance(each, int | float)]
    if not numbers or len(numbers) < len(listed) or any(a >= b for a, b in pairwise((0, *numbers))):
        raise ValueError(
            "model.schedule_options.milestones must be positive numbers, the smallest first, below 1 shares "
            f"of training and from 1 on epochs, got {milestones}; [0.5, 0.75] is customary"
        )
    if not (isinstance(gamma, int | float) and 0 < gamma < 1):
        raise ValueError(f"model.schedule_options.gamma must lie in (0, 1), got {gamma}; 0.1 is customary")


def build_schedule(
    optimizer: Optimizer,
    name: Schedule,
    *,
    max_epochs: int,
    warmup_epochs: int,
    steps_per_epoch: int,
    max_steps: int | None = None,
    warmup_prefix: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Scheduler | None:
    """The schedule, moving at each step; None for a constant rate without warm-up.

    "cosine", "poly" and "tanh" fall to zero at the end; "step" divides by ten after each third of
    the epochs, "multistep" multiplies by `gamma` after each of its `milestones`; "plateau" divides by ten
    at the end of the sixth epoch in a row without improvement.

    Args:
        optimizer: Whose groups have their peak rates.
        name: Of the schedule.
        max_epochs: Of training, warm-up included.
        warmup_epochs: Over which the rate rises from zero.
        steps_per_epoch: Of the optimizer.
        max_steps: After which training ends, if that is earlier.
        warmup_prefix: "cosine", "poly", "tanh" and "step" begin when warm-up ends, at the peak, and take the
            epochs that are left. Otherwise they begin with training: the rate goes from warm-up to where
            they stand by then. The milestones of "multistep" count from the beginning of training always.
        options: Of "multistep".
    """
    total = max_epochs * steps_per_epoch
    total = total if max_steps is None else min(total, max_steps)
    warmup = warmup_epochs * steps_per_epoch
    if name == "plateau":
        return Plateau(optimizer, warmup_epochs, steps_per_epoch)
    if name == "multistep":
        return _build_multistep(optimizer, total / steps_per_epoch, warmup, steps_per_epoch, options or {})
    falling = max(1, total - warmup) if warmup_prefix else total
    third = -(-falling // (3 * steps_per_epoch)) * steps_per_epoch  # of whole epochs
    if name == "constant":
        if warmup == 0:
            return None
        name, third = "step", total + 1  # warm-up, then a step that never comes
    scheduler: Scheduler
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=name,
        num_epochs=falling,
        decay_epochs=third,
        decay_rate=1.0 if name == "poly" else 0.1,  # for "poly" the power: a straight line
        min_lr=0.0,
        warmup_epochs=warmup,
        warmup_lr=0.0,
        warmup_prefix=warmup_prefix,
        step_on_epochs=False,
        updates_per_epoch=1,  # all of these are numbers of steps
    )
    return scheduler


def _build_multistep(
    optimizer: Optimizer,
    epochs: float,
    warmup: int,
    steps_per_epoch: int,
    options: Mapping[str, Any],
) -> Scheduler:
    milestones, gamma = (MULTISTEP | dict(options)).values()
    return MultiStepLRScheduler(
        optimizer,
        # timm moves one step ahead of its milestones.
        decay_t=[step + 1 for step in milestone_steps(milestones, epochs, steps_per_epoch)],
        decay_rate=gamma,
        warmup_t=warmup,
        warmup_prefix=False,
        t_in_epochs=False,
    )


def milestone_steps(milestones: Sequence[float], epochs: float, steps_per_epoch: int) -> list[int]:
    """Steps that are taken before each milestone: below 1 it is a share of training, from 1 on an epoch.

    >>> milestone_steps([0.5, 0.75], epochs=10, steps_per_epoch=4), milestone_steps([3, 9], 10, 4)
    ([20, 30], [12, 36])
    """
    reached = [each * epochs if each < 1 else each for each in milestones]
    return [round(epoch * steps_per_epoch) for epoch in reached]
