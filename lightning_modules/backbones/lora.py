"""LoRA: trained matrices of low rank beside the frozen weights of a pretrained network (Hu et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .head import head_names

MARK = ".lora_"  # of peft, in the names of what it adds


def add_adapters(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    rank: int,
    alpha: int,
    targets: Sequence[str] | None = None,
) -> None:
    """Adds B A x alpha / rank to layers of the trunk, in place; B starts at zero, so nothing changes yet.

    Args:
        network: Of ours or timm's. Its own weights stay where they are, under `base_layer`.
        image_shape: (C, H, W) of the images.
        rank: Rows of A, which is drawn from torch's global generator.
        alpha: The scale of what is added, over the rank.
        targets: How the names of the adapted layers end; None takes the linear layers, or where there are
            none the convolutions.

    Raises:
        ValueError: peft is not installed, or there are no such layers.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # costs seconds, and only this strategy needs it
    except ModuleNotFoundError as error:
        raise ValueError("model.finetuning.strategy=lora needs peft, which is not installed") from error

    names = adapted_layers(network, image_shape, targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="|".join(map(re.escape, names)))
    inject_adapter_in_model(config, network)


def adapter_parameters(network: nn.Module) -> set[str]:
    """The names of all that was added."""
    return {name for name, _ in network.named_parameters() if MARK in name}


def adapted_layers(
    network: nn.Module, image_shape: tuple[int, int, int], targets: Sequence[str] | None
) -> list[str]:
    """The names of the layers that get adapters, in the network's order.

    Raises:
        ValueError: There are none, or a target names none.
    """
    layers = adaptable_layers(network, image_shape)
    if targets is None:
        linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
        chosen = linear or list(layers)
    else:
        for target in targets:
            if not any(_ends_in(name, target) for name in layers):
                endings = dict.fromkeys(name.rpartition(".")[2] for name in layers)
                raise ValueError(
                    f"model.finetuning.lora_targets: no layer that LoRA adapts is named {target!r}; "
                    f"the names of this network's end in {', '.join(endings)}"
                )
        chosen = [name for name in layers if any(_ends_in(name, target) for target in targets)]
    if not chosen:
        raise ValueError(
            f"model.finetuning.strategy=lora: {type(network).__name__} has no linear layer and no plain "
            "convolution below its head, which LoRA could adapt; norm_and_bias trains few parameters of any"
        )
    return chosen


def adaptable_layers(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, nn.Module]:
    """The trunk's plain linear layers and convolutions by name, as far as the network calls them.

    Those of timm's with arithmetic of their own, padding for one, would not fit what is put beside them,
    and a layer that only lends its weights, as BEiT's `qkv` does, would be adapted to no effect.
    """
    heads = tuple(f"{head}." for head in head_names(network))
    candidates = {
        name: module
        for name, module in network.named_modules()
        if not f"{name}.".startswith(heads)
        and (type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1))
    }
    called: set[nn.Module] = set()

    def note(module: nn.Module, _: tuple[Tensor, ...]) -> None:
        called.add(module)

    hooks = [module.register_forward_pre_hook(note) for module in candidates.values()]
    was_training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, *image_shape))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return {name: module for name, module in candidates.items() if module in called}


def _ends_in(name: str, target: str) -> bool:
    """Whether the last parts of a dotted name are those.

    >>> _ends_in("blocks.0.attn.proj", "attn.proj"), _ends_in("blocks.0.attn.proj", "roj")
    (True, False)
    """
    return f".{name}".endswith(f".{target}")
