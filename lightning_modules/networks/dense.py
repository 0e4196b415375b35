"""Fully connected layers on flattened pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from .layers import Activation, activation_layer
from .network import Network


class Dense(Network):
    """Flatten, hidden layers, head.

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images.
        dropout: Probability of dropping a feature before the head.
        hidden_sizes: Units of each hidden layer, first to last.
        activation: Nonlinearity after each hidden layer.
    """

    def __init__(
        self,
        num_outputs: int,
        image_shape: tuple[int, int, int],
        dropout: float = 0.0,
        *,
        hidden_sizes: Sequence[int] = (256, 128),
        activation: Activation = "relu",
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(image_shape)
        for hidden_size in hidden_sizes:
            layers += [nn.Linear(width, hidden_size), activation_layer(activation)]
            width = hidden_size
        super().__init__(nn.Sequential(*layers), width, num_outputs, dropout)
