"""The network as others use it: from uint8 images to class probabilities."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.losses import to_probabilities


class Predictor(nn.Module):
    """What a run leaves behind: uint8 images (N, C, H, W) to class probabilities (N, num_classes).

    Args:
        preprocess: The data's evaluation transform, from uint8 to what the network eats.
        network: From there to logits.
    """

    def __init__(self, preprocess: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return to_probabilities(self.network(self.preprocess(images)).float())
