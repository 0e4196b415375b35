"""Optimizers decay weights alone, and schedules move the rate as their names say."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler, TanhLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.optimization.optimizers import (
    Schedule,
    build_optimizer,
    build_schedule,
    optimizer_names,
)

PEAK = 0.5


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 3)
    )


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "momentum", "rmsprop", "lamb", "AdamW"])
def test_named_optimizers_build_take_the_rate_and_descend(name: str) -> None:
    torch.manual_seed(0)
    network = small_network()
    optimizer = build_optimizer(network, name, 1e-2, 0.0, {})
    assert {group["lr"] for group in optimizer.param_groups} == {1e-2}
    images, targets = torch.randn(32, 1, 3, 3), torch.arange(32) % 3
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert name.lower() in optimizer_names()


def test_adam_and_adamw_are_torchs() -> None:
    assert type(build_optimizer(small_network(), "adam", 1e-2, 0.0, {})) is torch.optim.Adam
    assert type(build_optimizer(small_network(), "adamw", 1e-2, 0.0, {})) is torch.optim.AdamW


def test_options_reach_the_optimizer_and_momentum_is_as_documented() -> None:
    sgd = build_optimizer(small_network(), "sgd", 1e-2, 0.0, {})
    assert {group["momentum"] for group in sgd.param_groups} == {0.9}
    sgd = build_optimizer(small_network(), "sgd", 1e-2, 0.0, {"momentum": 0.5})
    assert {group["momentum"] for group in sgd.param_groups} == {0.5}
    adam = build_optimizer(small_network(), "adam", 1e-2, 0.0, {"betas": (0.8, 0.9)})
    assert adam.param_groups[0]["betas"] == (0.8, 0.9)


def test_decay_reaches_kernels_and_matrices_but_no_bias_and_no_norm() -> None:
    network = small_network()
    optimizer = build_optimizer(network, "sgd", 1e-2, 0.3, {})
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_name = {name: decay[id(parameter)] for name, parameter in network.named_parameters()}
    decayed = {"0.weight", "4.weight"}  # of the convolution and of the linear layer
    assert by_name == {name: 0.3 if name in decayed else 0.0 for name in by_name}
    assert len(by_name) == 8


def test_frozen_parameters_are_left_out() -> None:
    network = small_network()
    network[0].requires_grad_(False)
    optimizer = build_optimizer(network, "sgd", 1e-2, 0.1, {})
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


# Schedules --------------------------------------------------------------------------------------


class Run:
    """An optimizer and its schedule, driven as the classifier drives them."""

    def __init__(
        self,
        name: Schedule,
        max_epochs: int,
        warmup_epochs: int = 0,
        steps: int = 4,
        prefix: bool = True,
        **options: Any,
    ) -> None:
        weight, bias = nn.Linear(1, 1).parameters()
        groups = [{"params": [weight]}, {"params": [bias], "lr": PEAK / 8}]  # a layer with a rate of its own
        self.optimizer: Optimizer = torch.optim.SGD(groups, lr=PEAK)
        self.schedule = build_schedule(
            self.optimizer,
            name,
            max_epochs=max_epochs,
            warmup_epochs=warmup_epochs,
            warmup_prefix=prefix,
            steps_per_epoch=steps,
            options=options,
        )
        self.steps = steps
        self.epoch = 0

    def train(self, losses: Sequence[float]) -> list[float]:
        """Trains an epoch for each loss; the rate of every step."""
        rates = []
        for loss in losses:
            for step in range(self.steps):
                rates.append(self.optimizer.param_groups[0]["lr"])
                assert self.optimizer.param_groups[1]["lr"] == pytest.approx(rates[-1] / 8)
                self.optimizer.step()
                if self.schedule is not None:
                    self.schedule.step_update(self.epoch * self.steps + step + 1)
            self.epoch += 1
            if self.schedule is not None:
                self.schedule.step(self.epoch, torch.tensor(loss))
        return rates


def rates_of(name: Schedule, max_epochs: int, warmup_epochs: int = 0) -> list[float]:
    return Run(name, max_epochs, warmup_epochs).train([1.0] * max_epochs)


def test_a_constant_rate_needs_no_schedule() -> None:
    assert Run("constant", 5).schedule is None


def test_cosine_is_half_a_cosine_down_to_zero() -> None:
    expected = [PEAK * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    rates = rates_of("cosine", 10)
    assert rates == pytest.approx(expected)
    assert rates[-1] < 0.01 * PEAK


@pytest.mark.parametrize("name", ["cosine", "poly", "tanh"])
def test_a_falling_schedule_never_rises_and_ends_at_zero(name: Schedule) -> None:
    run = Run(name, 10)
    rates = run.train([1.0] * 10)
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["constant", "cosine", "multistep", "plateau", "poly", "step", "tanh"])
def test_warm_up_rises_linearly_from_zero_to_the_peak(name: Schedule) -> None:
    rates = rates_of(name, 10, warmup_epochs=2)
    # tanh begins at 1 - 8e-7.
    assert rates[:9] == pytest.approx([PEAK * step / 8 for step in range(9)], rel=2e-6)


def after_warm_up(name: str, steps: int, every: int, gone: int, prefix: bool) -> Scheduler:
    """timm's own schedule of so many steps, with `gone` of warm-up."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=PEAK)
    warm: dict[str, Any] = {"warmup_t": gone, "warmup_prefix": prefix, "t_in_epochs": False}
    makers: dict[str, Callable[[], Scheduler]] = {
        "cosine": lambda: CosineLRScheduler(optimizer, t_initial=steps, **warm),
        "poly": lambda: PolyLRScheduler(optimizer, t_initial=steps, power=1.0, **warm),
        "tanh": lambda: TanhLRScheduler(optimizer, t_initial=steps, **warm),
        "step": lambda: StepLRScheduler(optimizer, decay_t=every, decay_rate=0.1, **warm),
    }
    return makers[name]()


@pytest.mark.parametrize("name", ["cosine", "poly", "step", "tanh"])
@pytest.mark.parametrize(("warmup", "steps"), [(1, 7), (3, 5), (0, 3), (10, 4)])
def test_a_schedule_with_warm_up_is_timms_own_with_that_prefix(
    name: Schedule, warmup: int, steps: int
) -> None:
    left = 10 - warmup
    reference = after_warm_up(
        name, max(1, left * steps), math.ceil(left / 3) * steps or 1, warmup * steps, True
    )
    run = Run(name, 10, warmup, steps)
    rates = run.train([1.0] * 10)
    assert rates == pytest.approx([reference._get_lr(step)[0] for step in range(10 * steps)], abs=1e-6)
    if left and name != "step":  # the whole of it fits into training
        assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["cosine", "poly", "step", "tanh"])
def test_without_the_prefix_warm_up_takes_the_place_of_the_first_epochs(name: Schedule) -> None:
    reference = after_warm_up(name, 40, 16, 8, prefix=False)
    rates = Run(name, 10, 2, prefix=False).train([1.0] * 10)
    assert rates == pytest.approx([reference._get_lr(step)[0] for step in range(40)], abs=1e-12)
    unwarmed = rates_of(name, 10)
    assert rates[8:] == pytest.approx(unwarmed[8:])
    assert (rates[8] < 0.99 * PEAK) == (name in ("cosine", "poly"))  # the others have not begun to fall


def test_where_steps_end_training_schedules_end_there_and_epochs_stay_epochs() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=PEAK)
    schedule = build_schedule(
        optimizer, "cosine", max_epochs=100, warmup_epochs=1, steps_per_epoch=8, max_steps=20
    )
    assert schedule is not None
    falling = [PEAK * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    rising = [PEAK * step / 8 for step in range(8)]
    assert [schedule._get_lr(step)[0] for step in range(20)] == pytest.approx(rising + falling)


def test_poly_is_a_straight_line() -> None:
    assert rates_of("poly", 10) == pytest.approx([PEAK * (1 - step / 40) for step in range(40)])


def test_after_warm_up_the_constant_rate_is_the_peak() -> None:
    assert rates_of("constant", 6, warmup_epochs=1)[4:] == [PEAK] * 20


@pytest.mark.parametrize(("max_epochs", "third"), [(9, 3), (10, 4), (1, 1)])
def test_step_divides_by_ten_after_each_third(max_epochs: int, third: int) -> None:
    expected = [PEAK / 10 ** (epoch // third) for epoch in range(max_epochs) for _ in range(4)]
    assert rates_of("step", max_epochs) == pytest.approx(expected)


@pytest.mark.parametrize("milestones", [[3, 7], [0.25, 7 / 12]])
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_multistep_moves_as_torchs_does_after_the_epochs_that_are_named(
    milestones: list[float], warmup_epochs: int
) -> None:
    parameters = nn.Linear(1, 1).parameters()
    reference = torch.optim.SGD(parameters, lr=PEAK)
    schedule = torch.optim.lr_scheduler.MultiStepLR(reference, milestones=[3, 7], gamma=0.2)
    expected = []
    for _ in range(12):
        expected += [reference.param_groups[0]["lr"]] * 4
        reference.step()
        schedule.step()
    rates = Run("multistep", 12, warmup_epochs, milestones=milestones, gamma=0.2).train([1.0] * 12)
    assert rates[4 * warmup_epochs :] == pytest.approx(expected[4 * warmup_epochs :])


def test_a_milestone_within_an_epoch_is_met_at_its_step() -> None:
    rates = Run("multistep", 3, steps=10, milestones=[0.5], gamma=0.1).train([1.0] * 3)
    assert rates == pytest.approx([PEAK] * 15 + [PEAK / 10] * 15)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cosine", {"gamma": 0.1}, "model.schedule=cosine has no option gamma; it takes none"),
        ("multistep", {"rate": 0.1}, "has no option rate; it takes milestones, gamma"),
        (
            "multistep",
            {"milestones": [0.75, 0.5]},
            r"the smallest first, .* got \[0.75, 0.5\]; ",
        ),
        ("multistep", {"milestones": 30}, "milestones must be positive numbers"),
        ("multistep", {"milestones": [0, 0.5]}, "milestones must be positive numbers"),
        ("multistep", {"gamma": 10}, r"gamma must lie in \(0, 1\), got 10; 0.1 is customary"),
    ],
)
def test_options_of_a_schedule_that_make_no_sense_are_refused(name: str, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageClassifier(schedule=name, schedule_options=options)


def test_plateau_divides_by_ten_after_the_sixth_epoch_without_improvement() -> None:
    falling = [1.0, 0.9, 0.8]
    rates = Run("plateau", 20).train([*falling, *[0.8] * 5, 0.7, *[0.7] * 7])
    by_epoch = rates[::4]
    assert by_epoch == pytest.approx([PEAK] * 15 + [PEAK / 10])
    assert rates == [rate for rate in by_epoch for _ in range(4)]  # moves between epochs alone


def test_plateau_waits_for_the_end_of_warm_up() -> None:
    rates = Run("plateau", 20, warmup_epochs=7).train([1.0] * 15)
    assert rates[4 * 7 : 4 * 14] == pytest.approx([PEAK] * 28)
    assert rates[4 * 14 :] == pytest.approx([PEAK / 10] * 4)


@pytest.mark.parametrize("name", ["cosine", "multistep", "plateau", "poly", "step", "tanh", "constant"])
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_restored_schedule_goes_on_as_if_never_interrupted(name: Schedule, cut: int) -> None:
    losses = [1.0, *[0.9] * 15]
    uninterrupted = Run(name, 16, warmup_epochs=2).train(losses)
    killed, restored = Run(name, 16, warmup_epochs=2), Run(name, 16, warmup_epochs=2)
    before = killed.train(losses[:cut])
    assert killed.schedule is not None
    assert restored.schedule is not None
    # In Lightning's order: schedules are restored after optimizers.
    restored.optimizer.load_state_dict(copy.deepcopy(killed.optimizer.state_dict()))
    restored.schedule.load_state_dict(copy.deepcopy(killed.schedule.state_dict()))
    restored.epoch = cut
    assert before + restored.train(losses[cut:]) == uninterrupted


def test_every_schedule_of_the_signature_builds() -> None:
    names = inspect.get_annotations(build_schedule, eval_str=True)["name"].__args__
    for name in names:
        Run(name, 3, warmup_epochs=1).train([1.0] * 3)
