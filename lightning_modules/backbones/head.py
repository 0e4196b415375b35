"""The classification head: its names, features before it, and the head applied to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..seeding import seed_dropout


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


def start_at_zero(head: nn.Module) -> None:
    """All classes equally likely: networks' own first weights may be far too large for few classes.

    EfficientNet's, drawn for a thousand, cost a linear probe on two classes twenty points of accuracy.
    Norms and hidden layers of a head stay as they are: were they zero too, no gradient would reach any.
    """
    for name in logit_layers(head):
        for parameter in head.get_submodule(name).parameters():
            nn.init.zeros_(parameter)


def logit_layers(head: nn.Module, prefix: str = "") -> list[str]:
    """The names of a head's layers that give logits: the last one, and others of as many outputs.

    >>> logit_layers(nn.Linear(2, 3), "fc")
    ['fc']
    >>> logit_layers(nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Linear(8, 3)), "fc")
    ['fc.2']
    """
    widths = {
        name: module.out_features if isinstance(module, nn.Linear) else module.out_channels
        for name, module in head.named_modules(prefix=prefix)
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    return [name for name, width in widths.items() if width == list(widths.values())[-1]]


def head_names(network: nn.Module) -> list[str]:
    """Where the classification head stands in the network: one name, or two of a distilled one."""
    given = network.get_classifier()  # type: ignore[operator]
    heads = given if isinstance(given, tuple | list) else (given,)
    return [name for name, module in network.named_modules() if any(module is head for head in heads)]
