"""Resolves auto precision, channels_last and tf32 for this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

if TYPE_CHECKING:
    from .trainer_settings import TrainerSettings

AMPERE = (8, 0)  # the first GPUs that multiply bf16 and TF32 in hardware
OPEN_KNOBS = ("precision", "channels_last", "tf32")


def settled(settings: TrainerSettings, network: nn.Module) -> TrainerSettings:
    """The settings with `precision`, `channels_last` and `tf32` as they are to be here.

    On a processor only convolutions gain by bf16, where it has instructions for them, and those of
    single channels (depthwise ones) lose; `tests/benchmarks/precision.py` measures it. Where nothing was
    measured nothing changes.
    """
    has_tensor_cores = False
    convolutions = [module for module in network.modules() if isinstance(module, _ConvNd)]
    if trains_on_gpu(settings.accelerator):
        has_tensor_cores = torch.cuda.get_device_capability() >= AMPERE
        gains, keeps_channels_last = has_tensor_cores, has_tensor_cores and bool(convolutions)
    elif settings.accelerator in ("auto", "cpu") and torch.cpu._is_avx512_bf16_supported():
        is_depthwise = any(module.groups == module.in_channels > 1 for module in convolutions)
        gains, keeps_channels_last = bool(convolutions) and not is_depthwise, bool(convolutions)
    else:
        gains = keeps_channels_last = False
    precision = settings.precision
    if is_open(precision):
        precision = "bf16-mixed" if gains else "32-true"
    return replace(
        settings,
        precision=precision,
        channels_last=keeps_channels_last if is_open(settings.channels_last) else settings.channels_last,
        tf32=has_tensor_cores and precision != "32-true" if is_open(settings.tf32) else settings.tf32,
    )


def open_knobs(settings: TrainerSettings) -> dict[str, Any]:
    """Returns the settings that may be left open, as they stand."""
    return {name: getattr(settings, name) for name in OPEN_KNOBS}


def is_open(value: object) -> bool:
    return value is None or value == "auto"


def trains_on_gpu(accelerator: str) -> bool:
    """Whether that name of Lightning's stands for an NVIDIA GPU here."""
    return accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
