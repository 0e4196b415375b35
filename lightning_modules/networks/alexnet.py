"""AlexNet as torchvision has it (Krizhevsky 2014, one tower), for images from 63 pixels on."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import nn
from torchvision import models

from .layers import input_convolution
from .network import Network, count_features


class AlexNet(Network):
    """Five convolutions and two layers of 4,096 units; 61,100,840 parameters with 1,000 classes.

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images; at least 63 pixels.
        dropout: Probability of dropping a feature before the head.
        hidden_dropout: Before each of the two layers, as published.
    """

    published_names: ClassVar[dict[str, str]] = {
        "features.": "features.convolutions.",
        "classifier.6.": "head.",
        "classifier.": "features.units.",
    }

    def __init__(
        self,
        num_outputs: int,
        image_shape: tuple[int, int, int],
        dropout: float = 0.0,
        *,
        hidden_dropout: float = 0.5,
    ) -> None:
        network = models.AlexNet(dropout=hidden_dropout)
        network.features[0] = input_convolution(network.features[0], image_shape[0])
        features = nn.Sequential(
            OrderedDict(
                convolutions=network.features,
                pooling=network.avgpool,
                flattening=nn.Flatten(),
                units=network.classifier[:-1],
            )
        )
        super().__init__(features, count_features(features, image_shape), num_outputs, dropout)
