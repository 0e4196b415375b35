"""Losses by name, with their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from ..task import TaskName
from .functional import Asymmetric, Focal, Poly1, check_number
from .modules import BinaryCrossEntropy, ClassLoss, CrossEntropy, LabelLoss, OneHotBinaryCrossEntropy

LossName = Literal["cross_entropy", "bce", "focal", "asymmetric", "poly1"]
Criterion = CrossEntropy | BinaryCrossEntropy


@dataclass(frozen=True)
class Plain:
    """Options of cross-entropy: it has none."""


@dataclass(frozen=True)
class OneHot:
    """Options of binary cross-entropy.

    Args:
        target_threshold: What mixing left a larger share than this counts as present in full, the rest
            as absent; null leaves all their shares, 0.2 is Wightman et al.'s.
    """

    target_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.target_threshold is not None:
            check_number("target_threshold of bce", self.target_threshold, 0, 1, advice="0.2 is customary")


@dataclass(frozen=True)
class Loss:
    """A row of the table.

    Attributes:
        options: A dataclass whose fields are the options.
        of_classes: From label smoothing and options to the loss of tasks with one class an image; None
            where it has no meaning for them.
        of_labels: The same of multi-label tasks.
    """

    options: type
    of_classes: Callable[[float, Any], Criterion] | None
    of_labels: Callable[[float, Any], Criterion] | None


LOSSES: dict[LossName, Loss] = {
    "cross_entropy": Loss(Plain, lambda smoothing, _: CrossEntropy(smoothing), None),
    "bce": Loss(
        OneHot,
        lambda smoothing, options: OneHotBinaryCrossEntropy(smoothing, options.target_threshold),
        lambda smoothing, options: BinaryCrossEntropy(smoothing, options.target_threshold),
    ),
    "focal": Loss(Focal, ClassLoss, LabelLoss),
    "asymmetric": Loss(Asymmetric, None, LabelLoss),
    "poly1": Loss(Poly1, ClassLoss, LabelLoss),
}


def check_loss(name: LossName | None, given: Mapping[str, Any] | None) -> Any:
    """The options as an instance of the loss's dataclass; None without a loss.

    Raises:
        ValueError: The loss has no such option, or the value is invalid.
    """
    if name is None:
        if given:
            raise ValueError(f"model.loss_options belong to a model.loss; known are {', '.join(LOSSES)}")
        return None
    known = [field.name for field in fields(LOSSES[name].options)]
    for option in given or {}:
        if option not in known:
            near = get_close_matches(option, known)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it takes {', '.join(known) or 'none'}"
            raise ValueError(f"model.loss_options: {name} has no option {option!r}; {hint}")
    return LOSSES[name].options(**(given or {}))


def build_criterion(
    name: LossName | None, given: Mapping[str, Any] | None, label_smoothing: float, task: TaskName
) -> Criterion:
    """The loss of that name; without one, cross-entropy of classes and binary cross-entropy of labels.

    Raises:
        ValueError: The task has no such loss, or the loss no such options.
    """
    multilabel = task == "multilabel"
    if name is None:
        name = "bce" if multilabel else "cross_entropy"
    options = check_loss(name, given)
    makers = {key: loss.of_labels if multilabel else loss.of_classes for key, loss in LOSSES.items()}
    maker = makers[name]
    if maker is None:
        admitted = [key for key, each in makers.items() if each is not None]
        raise ValueError(f"model.loss: a {task} task has no {name}; it has {', '.join(admitted)}")
    return maker(label_smoothing, options)
