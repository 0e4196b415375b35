"""Features before the head, and the head applied to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..seeding import seed_dropout
from .weight_loading import head_names


@torch.no_grad()
def head_inputs(network: nn.Module, images: Tensor) -> Tensor | None:
    """Features (B, ...) of normalised images (B, C, H, W), as the first head gets them, before any dropout.

    None where the head is a list of layers that get different features. A convolution's, of a single place
    (B, F, 1, 1), are given as (B, F). The network is left in the mode of evaluation.
    """
    network.eval()
    caught: list[Tensor] = []
    head = network.get_submodule(head_names(network)[0])
    with head.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0])):
        network(images)
    if not caught:
        return None
    features = caught[0]
    is_place = isinstance(head, nn.Conv2d) and features.shape[2:] == (1, 1)
    return features.flatten(1) if is_place else features


def classify(network: nn.Module, features: Tensor, dropout: float) -> Tensor:
    """Features (B, F) to logits (B, K): dropout, as the network's mode has it, and its head."""
    head = network.get_submodule(head_names(network)[0])
    features = F.dropout(features, dropout, network.training)
    is_convolution = isinstance(head, nn.Conv2d)
    logits: Tensor = head(features[..., None, None] if is_convolution else features)
    return logits.flatten(1)


@torch.no_grad()
def is_head_of(network: nn.Module, images: Tensor, features: Tensor, dropout: float) -> bool:
    """Whether, in the network's present mode, logits follow from the features alone.

    Not where there are several heads, something comes after them, or features are still maps. Statistics
    of a head's batch norms are left as they were.
    """
    if features.ndim != 2 or len(head_names(network)) != 1:
        return False
    before = [buffer.clone() for buffer in network.buffers()]
    seed_dropout(0)
    whole = network(images)
    seed_dropout(0)
    follow = torch.allclose(whole, classify(network, features, dropout), rtol=1e-4, atol=1e-5)
    for buffer, value in zip(network.buffers(), before, strict=True):
        buffer.copy_(value)
    return follow
