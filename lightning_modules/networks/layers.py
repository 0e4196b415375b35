"""The named layers that networks are built of: activations, normalisations, poolings."""

from __future__ import annotations

from typing import Literal

from torch import nn

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
LayerNormalization = Literal["none", "batch", "group", "layer"]
Pooling = Literal["max", "avg"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation_layer(name: Activation) -> nn.Module:
    return _ACTIVATIONS[name]()


def normalization_layer(name: LayerNormalization, channels: int) -> nn.Module | None:
    """The layer for feature maps of `channels`; None where there is none to add."""
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(num_groups=min(8, channels), num_channels=channels)
    if name == "layer":
        return nn.GroupNorm(num_groups=1, num_channels=channels)
    return None


def pooling_layer(name: Pooling, size: int = 2) -> nn.Module:
    return nn.MaxPool2d(size) if name == "max" else nn.AvgPool2d(size)


def input_convolution(convolution: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The first convolution of a network, made anew where images have other channels than it takes."""
    if convolution.in_channels == channels:
        return convolution
    return nn.Conv2d(
        channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        bias=convolution.bias is not None,
    )
