"""Validates the classifier's arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .backbones.factory import is_backbone, pretrained_config
from .backbones.weight_loading import check_weights
from .losses.registry import check_loss
from .networks import NETWORKS
from .optimization.optimizers import check_schedule, needs_second_derivatives, optimizer_names

SHARES = ("dropout", "label_smoothing")
FACTORS = ("weight_decay", "mixup", "cutmix", "l1", "l2")


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuses what needs no data to be refused.

    Raises:
        ValueError: An argument is out of range, or names what does not exist.
    """
    if not is_backbone(given["backbone"]):
        raise ValueError(f"model.backbone: no backbone is named {given['backbone']!r}")
    pretrained_config(given["backbone"])  # which refuses unknown tags
    if given["pretrained"] and given["backbone"] in NETWORKS:
        raise ValueError(
            f"model.pretrained: no hub has weights of {given['backbone']}; model.weights=FILE takes a file"
        )
    check_weights(given["weights"], given["pretrained"])
    if given["optimizer"].lower() not in optimizer_names():
        raise ValueError(f"model.optimizer: no optimizer is named {given['optimizer']!r}")
    if needs_second_derivatives(given["optimizer"]):
        raise ValueError(
            f"model.optimizer={given['optimizer']} needs the gradients' own gradients, which are not "
            "computed here; take another, such as adamw"
        )
    lr = given["lr"]
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"model.lr must be positive, got {lr}; 0.001 is customary for Adam")
    for name in SHARES:
        if not 0 <= given[name] < 1:
            raise ValueError(f"model.{name} must lie in [0, 1), got {given[name]}")
    for name in FACTORS:
        if not (given[name] >= 0 and math.isfinite(given[name])):
            raise ValueError(f"model.{name} must be at least 0, got {given[name]}")
    rho = given["sam_rho"]
    if rho is not None and not (rho > 0 and math.isfinite(rho)):
        raise ValueError(f"model.sam_rho must be positive, or null for none, got {rho}; 0.05 is customary")
    check_schedule(given["schedule"], given["schedule_options"])
    if given["warmup_epochs"] < 0:
        raise ValueError(f"model.warmup_epochs must be at least 0, got {given['warmup_epochs']}")
    check_loss(given["loss"], given["loss_options"])
