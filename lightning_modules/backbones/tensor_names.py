"""Names of a file's tensors, translated into the names that a network has for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection

from torch import Tensor, nn

from ..networks.network import Network

State = dict[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "backbone.")  # what others call the whole network
HEADS = ("linear", "fc", "head", "classifier")  # what others call the last layer of a network like ours


def is_of(key: str, module_name: str) -> bool:
    return key.startswith(f"{module_name}.")


def without_wrappers(
    state: State, wanted: Collection[str], heads: Collection[str]
) -> tuple[State, list[str]]:
    """Without the prefixes that stand before the network's names, and which tensors that leaves out.

    A head may stand beside what has the prefix, as in `backbone.conv.weight` with `head.fc.weight`.

    >>> without_wrappers({"model.module.fc.bias": 0, "loss.weight": 1}, ["fc.bias"], ["fc"])
    ({'fc.bias': 0}, ['loss.weight'])
    """
    unused: list[str] = []
    body = {key for key in wanted if not any(is_of(key, head) for head in heads)} or set(wanted)
    while not any(key in body for key in state):
        counts = {prefix: sum(key.startswith(prefix) for key in state) for prefix in WRAPPERS}
        prefix = max(WRAPPERS, key=lambda each: counts[each])
        if not counts[prefix]:
            break
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        beside = {key: value for key, value in state.items() if not key.startswith(prefix)}
        head = _head_beside(beside, wanted, heads)
        if any(is_of(key, name) for key in inside for name in heads):
            head = {}
        unused += [key for key in beside if key not in head]
        state = inside | {name: beside[key] for key, name in head.items()}
    return state, unused


def _head_beside(beside: State, wanted: Collection[str], heads: Collection[str]) -> dict[str, str]:
    """The network's names for the head's tensors among these, by their own names; empty where none is a head.

    >>> _head_beside({"head.fc.bias": 0, "loss.weight": 1}, ["classifier.bias"], ["classifier"])
    {'head.fc.bias': 'classifier.bias'}
    """
    own = {key: key for key in beside if key in wanted and any(is_of(key, head) for head in heads)}
    layers = {key.rpartition(".")[0] for key in beside if key.partition(".")[0] in HEADS}
    if own or len(layers) != 1 or len(heads) != 1:
        return own
    (layer,), (head,) = layers, heads
    renamed = {key: _renamed(key, layer, head) for key in beside if is_of(key, layer)}
    return renamed if set(renamed.values()) <= set(wanted) else {}


def in_our_names(state: State, network: Network) -> State:
    """A published network's tensors under the names that a network of ours has for them."""
    wanted = network.state_dict()
    published = network.published_names.items()
    state = {
        next((key.replace(old, new, 1) for old, new in published if key.startswith(old)), key): tensor
        for key, tensor in state.items()
    }
    if not any(key.startswith("head.") for key in state):
        alias = next((name for name in HEADS if f"{name}.weight" in state), None)
        if alias is not None:
            state = {_renamed(key, alias, "head"): tensor for key, tensor in state.items()}
    return {
        f"features.{key}" if key not in wanted and f"features.{key}" in wanted else key: tensor
        for key, tensor in state.items()
    }


def _renamed(key: str, old: str, new: str) -> str:
    return f"{new}.{key.removeprefix(f'{old}.')}" if key.startswith(f"{old}.") else key


def in_timms_names(state: State, network: nn.Module) -> State:
    """What timm does with a published file of this model: other names, resized position embeddings."""
    convert = _conversion(network)
    if convert is None:
        return state
    arguments = (state, network) if len(inspect.signature(convert).parameters) > 1 else (state,)
    converted: State = convert(*arguments)
    return converted


def _conversion(network: nn.Module) -> Callable[..., State] | None:
    """timm keeps a model's conversion beside its class, under one of these names."""
    module = inspect.getmodule(type(network))
    for name in ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained"):
        if hasattr(module, name):
            conversion: Callable[..., State] = getattr(module, name)
            return conversion
    return None
