"""A plain convolutional network whose every size is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from .layers import (
    Activation,
    LayerNormalization,
    Pooling,
    activation_layer,
    normalization_layer,
    pooling_layer,
)
from .network import Network, count_features


class SmallCNN(Network):
    """Stages of convolution, normalisation and activation, each halved in size by pooling.

    Pooling follows the first convolution of a stage at once, so that all else of it works on a quarter
    of the positions (as in Jordan 2024, arXiv:2404.00498): at 28x28 six convolutions then take the
    time that three take with pooling at the end.

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images.
        dropout: Probability of dropping a feature before the head.
        widths: Channels of each stage; their number is the number of stages.
        convs_per_stage: Convolutions in each stage.
        kernel_size: Side of the square kernels, in pixels; odd.
        padding: "same" keeps the size in each convolution, "valid" loses kernel_size - 1 pixels.
        pooling: What halves the feature map in each stage.
        activation: Nonlinearity after each convolution and dense layer.
        normalization: Normalisation between convolution and activation.
        global_pooling: Average over all positions before the head, instead of flattening them.
        dense_units: Units of the hidden dense layers between the stages and the head.
        dense_dropout: Probability of dropping a feature before the hidden dense layers.
    """

    def __init__(
        self,
        num_outputs: int,
        image_shape: tuple[int, int, int],
        dropout: float = 0.0,
        *,
        widths: Sequence[int] = (32, 64, 128),
        convs_per_stage: int = 1,
        kernel_size: int = 3,
        padding: Literal["same", "valid"] = "same",
        pooling: Pooling = "max",
        activation: Activation = "relu",
        normalization: LayerNormalization = "batch",
        global_pooling: bool = False,
        dense_units: Sequence[int] = (),
        dense_dropout: float = 0.0,
    ) -> None:
        if not widths or convs_per_stage < 1:
            raise ValueError(
                f"small_cnn needs at least one stage of one convolution, got widths={list(widths)}, "
                f"convs_per_stage={convs_per_stage}"
            )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}; 3 is customary")
        border = kernel_size // 2 if padding == "same" else 0
        layers: list[nn.Module] = []
        channels = image_shape[0]
        for width in widths:
            for position in range(convs_per_stage):
                norm = normalization_layer(normalization, width)
                # A bias before a normalisation is subtracted again (Ioffe and Szegedy 2015, section 3.2).
                conv = nn.Conv2d(channels, width, kernel_size, padding=border, bias=norm is None)
                layers += [conv, *([pooling_layer(pooling)] if position == 0 else [])]
                layers += [*([norm] if norm else []), activation_layer(activation)]
                channels = width
        layers += [nn.AdaptiveAvgPool2d(1)] if global_pooling else []
        layers += [nn.Dropout(dense_dropout)] if dense_dropout > 0 else []
        layers.append(nn.Flatten())
        num_features = count_features(nn.Sequential(*layers), image_shape)
        for units in dense_units:
            layers += [nn.Linear(num_features, units), activation_layer(activation)]
            num_features = units
        super().__init__(nn.Sequential(*layers), num_features, num_outputs, dropout)
