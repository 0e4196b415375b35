"""The network as others use it: from uint8 images to probabilities."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lightning_modules.losses import to_probabilities


class Predictor(nn.Module):
    """What a run leaves behind: uint8 images (N, C, H, W) to probabilities (N, num_classes).

    Args:
        preprocess: The data's evaluation transform, from uint8 to what the network eats.
        network: From there to logits.
        probabilities: From there to probabilities, as the task has them.
    """

    def __init__(
        self,
        preprocess: nn.Module,
        network: nn.Module,
        probabilities: Callable[[Tensor], Tensor] = to_probabilities,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.probabilities = probabilities

    def forward(self, images: Tensor) -> Tensor:
        return self.probabilities(self.network(self.preprocess(images)).float())
