"""Loads weights from a file into a backbone."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import timm
import timm.models
from safetensors import SafetensorError
from timm.models import load_state_dict
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from ..networks.network import Network
from .head import head_names, logit_layers, start_at_zero
from .tensor_names import State, in_our_names, in_timms_names, is_of, without_wrappers

SUFFIXES = (".safetensors", ".pth", ".th", ".pt", ".ckpt")
# Inception's, GoogLeNet's and VOLO's: no logits come from them here.
AUXILIARY_HEADS = ("AuxLogits.", "aux1.", "aux2.", "aux_head.")
LISTED = 6
# Of files that were cut off or are something else, whatever their bytes lead the readers to.
UNREADABLE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    pickle.UnpicklingError,
    SafetensorError,
)


@dataclass(frozen=True)
class LoadedWeights:
    """What came of loading a file.

    Attributes:
        sha256: The first 16 hexadecimal digits of the file's hash.
        notes: What was adapted, for the user to read.
        new_heads: The heads that start anew.
    """

    sha256: str
    notes: tuple[str, ...]
    new_heads: tuple[str, ...] = ()


def load_weights(network: nn.Module, path: Path, in_channels: int) -> LoadedWeights:
    """Fills the network from a file of tensors by name, in place.

    Names may carry the prefixes that wrappers leave. The first convolution is adapted to `in_channels` as
    timm does it: colours are summed for one channel, else repeated and scaled. timm's own conversions for
    the model are applied (position embeddings are resized). A head of other classes starts anew, and its
    last layer at zero.

    Raises:
        ValueError: There is no such file, it can't be read as weights alone, or anything but the head
            does not match.
    """
    state = read_weights(path)
    state, notes = _named_as_in(network, state, path)
    notes += _adapt_inputs(network, state, path, in_channels)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(AUXILIARY_HEADS)}
    fit = _fit(network, state)
    _check_fit(fit, path, len(state), len(network.state_dict()))
    notes += [_start_head(network, head, state, fit, path) for head in fit.new_heads]
    fitting = {key: tensor for key, tensor in state.items() if key not in fit.fresh}
    network.load_state_dict(fitting, strict=False)
    return LoadedWeights(content_hash(path), tuple(notes), tuple(fit.new_heads))


def _named_as_in(network: nn.Module, state: State, path: Path) -> tuple[State, list[str]]:
    """The tensors by the network's own names, and a note on those that are not used."""
    state, unused = without_wrappers(state, network.state_dict(), head_names(network))
    state = in_our_names(state, network) if isinstance(network, Network) else in_timms_names(state, network)
    if not unused:
        return state, []
    more = f" and {len(unused) - LISTED} more" if len(unused) > LISTED else ""
    return state, [f"{path.name} has tensors that are not used: {', '.join(unused[:LISTED])}{more}"]


def _adapt_inputs(network: nn.Module, state: State, path: Path, in_channels: int) -> list[str]:
    """Adapts the first convolutions' weights to the images' channels, in place; returns notes on it."""
    notes = []
    for name in _input_convolutions(network):
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.ndim == 4:
            state[f"{name}.weight"], source = _adapt(weight, network.get_submodule(name), in_channels)
            if source != in_channels:
                notes.append(f"{path.name} has {source} input channels; {name} was adapted to {in_channels}")
    return notes


@dataclass(frozen=True)
class _Fit:
    """How tensors fit a network.

    Attributes:
        new_heads: Heads that start anew, because the file has none of them or one of other classes.
        logits: Names of the layers of each new head that give logits.
        fresh: Tensors of new heads that are not taken from the file.
        differences: What does not match and may not differ, in words.
    """

    new_heads: list[str]
    logits: dict[str, list[str]]
    fresh: set[str]
    differences: list[str]


def _fit(network: nn.Module, state: State) -> _Fit:
    """Holds the tensors of a file against those that the network wants."""
    wanted, heads = network.state_dict(), head_names(network)
    optional = [
        key for key in wanted if key.endswith("num_batches_tracked") or key.startswith(AUXILIARY_HEADS)
    ]
    missing = [key for key in wanted if key not in state and key not in optional]
    misshapen = [key for key in state if key in wanted and state[key].shape != wanted[key].shape]
    new_heads = sorted({head for head in heads for key in (*missing, *misshapen) if is_of(key, head)})
    logits = {head: logit_layers(network.get_submodule(head), head) for head in new_heads}
    ends = {key for layers in logits.values() for layer in layers for key in wanted if is_of(key, layer)}
    fresh = ends | {key for key in missing if any(is_of(key, head) for head in new_heads)}
    differences = [f"missing {key}" for key in missing if key not in fresh]
    differences += [f"unexpected {key}" for key in state if key not in wanted]
    differences += [
        f"{key} of {_size(state[key])} for {_size(wanted[key])}"
        for key in misshapen
        if key not in ends or state[key].shape[1:] != wanted[key].shape[1:]
    ]
    return _Fit(new_heads, logits, fresh, differences)


def _check_fit(fit: _Fit, path: Path, num_given: int, num_wanted: int) -> None:
    """Refuses a file of which more than a head does not match.

    Raises:
        ValueError: It does not; the first differences are listed.
    """
    if not fit.differences:
        return
    more = f" and {len(fit.differences) - LISTED} more" if len(fit.differences) > LISTED else ""
    raise ValueError(
        f"model.weights={path} does not fit the backbone: {', '.join(fit.differences[:LISTED])}{more} "
        f"(the file has {num_given} tensors, the backbone {num_wanted}); only a head of other classes "
        "may differ. Are model.backbone and model.backbone_options those that the file was made with?"
    )


def _start_head(network: nn.Module, head: str, state: State, fit: _Fit, path: Path) -> str:
    """Starts a head at zero logits; returns a note that says so."""
    layers = fit.logits[head]
    there = next((state[f"{layer}.weight"] for layer in layers if f"{layer}.weight" in state), None)
    what = "no head" if there is None else f"a head of {len(there)} outputs"
    start_at_zero(network.get_submodule(head))
    anew = sorted({key.rpartition(".")[0] for key in fit.fresh if is_of(key, head)})
    return f"{path.name} has {what}; {', '.join(anew)} start{'s' * (len(anew) == 1)} anew"


def check_weights(weights: str | None, pretrained: bool) -> None:
    """Refuses what no file could mend; looks at no file.

    Raises:
        ValueError: Both sources of weights are asked for, or the name says that it is something else.
    """
    if weights is None:
        return
    if pretrained:
        raise ValueError("model.weights and model.pretrained=true both say where weights come from: give one")
    if Path(weights).suffix not in SUFFIXES:
        raise ValueError(f"model.weights must be a file of {', '.join(SUFFIXES)}, got {weights}")


def read_weights(path: Path) -> State:
    """A file's tensors by name, out of the dictionaries that training scripts wrap them in.

    Raises:
        ValueError: There is no such file, or it can't be read as weights alone.
    """
    if not path.is_file():
        raise ValueError(f"model.weights={path}: there is no such file (looked for {path.resolve()})")
    if path.stat().st_size == 0:
        raise ValueError(f"model.weights={path} is empty: was its download or copy broken off?")
    try:
        state = load_state_dict(str(path), weights_only=True)  # not the default of all timm's versions
    except (AttributeError, TypeError) as error:  # timm takes for granted that names lead to tensors
        raise ValueError(
            f"model.weights={path} holds something else than tensors by name, which are what "
            "torch.save(network.state_dict(), FILE) writes"
        ) from error
    except UNREADABLE as error:
        raise ValueError(f"model.weights={path} can't be read as weights alone: {reason(error)}") from error
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        there = f", but {', '.join(list(state)[:LISTED])}" if state else ""
        raise ValueError(f"model.weights={path} holds no tensors by name{there}")
    return tensors


def reason(error: Exception) -> str:
    """What an exception says, on one line; its type where it says nothing.

    >>> reason(ValueError("two\\n lines")), reason(AssertionError())
    ('two lines', 'AssertionError')
    """
    said = " ".join(str(error).split())
    return (
        f"{type(error).__name__}: {said}" if isinstance(error, LookupError) else said or type(error).__name__
    )


def content_hash(path: Path) -> str:
    """The first 16 hexadecimal digits of the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# Channels ---------------------------------------------------------------------------------------


def _input_convolutions(network: nn.Module) -> Iterable[str]:
    """The convolutions that see the image itself."""
    traits_of = getattr(timm.models, "get_model_traits", None)  # timm has had it since 1.0.31
    traits = traits_of(network) if traits_of is not None else {}
    named = traits.get("first_conv") or getattr(network, "pretrained_cfg", {}).get("first_conv")
    if named is not None:
        return (named,) if isinstance(named, str) else named
    return [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)][:1]


def _adapt(weight: Tensor, layer: nn.Module, in_channels: int) -> tuple[Tensor, int]:
    """The weight for images of `in_channels`, and the channels that it was made for."""
    if not isinstance(layer, nn.Conv2d):
        return weight, in_channels
    folded = layer.in_channels // in_channels  # pixels that a stem folds into channels; most fold none
    source = weight.shape[1] * layer.groups // max(folded, 1)
    if source == in_channels or folded < 1:
        return weight, in_channels
    if source == 3:
        return adapt_input_conv(in_channels, weight), source
    try:
        return adapt_input_conv(in_channels, weight, base_chans=source), source
    except TypeError:
        raise ValueError(
            f"these weights are of {source} input channels: to adapt them to {in_channels} takes timm 1.0.31 "
            f"or newer, this is {timm.__version__}; pip install --upgrade timm"
        ) from None


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
