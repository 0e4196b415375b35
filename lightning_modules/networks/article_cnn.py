"""Four strided convolutions, as an article on Fashion-MNIST in Keras stacks them."""

from __future__ import annotations

from timm.layers import Conv2dSame
from torch import nn

from .network import Network, count_features


class ArticleCNN(Network):
    """Convolutions of 32, 64, 128 and 256 filters, 3x3, stride 2; max pooling after two of them.

    Every convolution pads as TensorFlow's "same" does: one row right and below where the size is
    even, one on each side where it is odd. 390,410 parameters for 10 classes of 1x28x28.

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images.
        dropout: Probability of dropping a feature before the head.
    """

    def __init__(self, num_outputs: int, image_shape: tuple[int, int, int], dropout: float = 0.0) -> None:
        features = nn.Sequential(
            Conv2dSame(image_shape[0], 32, 3, stride=2),
            nn.ReLU(),
            Conv2dSame(32, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            Conv2dSame(64, 128, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            Conv2dSame(128, 256, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        num_features = count_features(features, image_shape)
        super().__init__(features, num_features, num_outputs, dropout)
