"""LeNet-5, the network that read cheques (LeCun et al. 1998, section II.B)."""

from __future__ import annotations

from torch import nn

from .layers import Activation, activation_layer
from .network import Network, count_features


class LeNet5(Network):
    """Convolutions of 6, 16 and 120 maps, 5x5, the first two averaged by 2x2; then 84 units.

    As usual today, C3 sees all maps of S2 and the output is linear with cross-entropy, where the
    paper has a table of connections and radial basis functions. 61,706 parameters on 1x28x28.

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images; smaller than 32 pixels is padded by 2 on each side,
            as the paper centres 28x28 digits in 32x32.
        dropout: Probability of dropping a feature before the head.
        activation: Nonlinearity; the paper's is a scaled tanh.
    """

    def __init__(
        self,
        num_outputs: int,
        image_shape: tuple[int, int, int],
        dropout: float = 0.0,
        *,
        activation: Activation = "tanh",
    ) -> None:
        features = nn.Sequential(
            nn.Conv2d(image_shape[0], 6, 5, padding=2 if image_shape[1] < 32 else 0),
            activation_layer(activation),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            activation_layer(activation),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5),
            activation_layer(activation),
            nn.Flatten(),
        )
        # C5 is a convolution so that larger images give more of its units (same section).
        num_features = count_features(features, image_shape)
        features.append(nn.Linear(num_features, 84)).append(activation_layer(activation))
        super().__init__(features, 84, num_outputs, dropout)
