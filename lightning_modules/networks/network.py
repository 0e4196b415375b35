"""What every network of our own is: features, dropout, and one linear head."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A feature extractor with a linear classifier on top.

    Args:
        features: Maps images (B, C, H, W) to features (B, F).
        num_features: F.
        num_outputs: Logits per image, K: one per class, or a single one for a binary task.
        dropout: Probability of dropping a feature before the head.

    Attributes:
        published_names: How names in published weights begin, and how they do here; the first that fits.
    """

    published_names: ClassVar[dict[str, str]] = {}

    def __init__(
        self, features: nn.Module, num_features: int, num_outputs: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.head = nn.Linear(num_features, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)  # (B, F)
        logits: Tensor = self.head(self.dropout(features))  # (B, K)
        return logits

    def get_classifier(self) -> nn.Module:
        """The head, under the name timm gives it."""
        return self.head


def count_features(features: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """The number of features that `features` makes of one image of (C, H, W).

    Raises:
        ValueError: The image is too small for the network's pooling and strides.
    """
    was_training = features.training
    try:
        with torch.no_grad():
            num_features = features.eval()(torch.zeros(1, *image_shape)).shape[1]
    except RuntimeError as error:
        raise ValueError(
            f"images of {'x'.join(map(str, image_shape))} are too small for this network ({error}); "
            "use fewer stages or a larger data.image_size"
        ) from error
    features.train(was_training)
    return int(num_features)
