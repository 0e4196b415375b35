"""GoogLeNet as torchvision has it (Szegedy et al. 2015, with batch norms), without auxiliary heads."""

from __future__ import annotations

import warnings
from collections import OrderedDict

from torch import nn
from torchvision import models

from .layers import input_convolution
from .network import Network, count_features


class GoogLeNet(Network):
    """Nine inception blocks on a stem that quarters the image; 6,624,904 parameters with 1,000 classes.

    torchvision's published weights expect pixels from -1 to 1: mean and deviation of 0.5.

    Args:
        num_outputs: Logits per image.
        image_shape: (C, H, W) of the images.
        dropout: Probability of dropping a feature before the head; 0.4 in the paper.
    """

    def __init__(self, num_outputs: int, image_shape: tuple[int, int, int], dropout: float = 0.0) -> None:
        with warnings.catch_warnings():  # of the time that its initialisation takes
            warnings.simplefilter("ignore")
            network = models.GoogLeNet(aux_logits=False, init_weights=True)
        network.conv1.conv = input_convolution(network.conv1.conv, image_shape[0])
        parts = OrderedDict(network.named_children())
        del parts["dropout"], parts["fc"]
        features = nn.Sequential(OrderedDict(**parts, flattening=nn.Flatten()))
        super().__init__(features, count_features(features, image_shape), num_outputs, dropout)
