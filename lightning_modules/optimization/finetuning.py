"""Freezing, unfreezing, layer-wise rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from timm.layers import evo_norm, filter_response_norm, grn, norm, norm_act
from timm.models import group_parameters
from timm.models.mlp_mixer import Affine
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ..backbones.head import head_names
from ..backbones.lora import adapter_parameters, add_adapters
from ..networks.network import Network

FinetuningStrategy = Literal["full", "linear_probe", "linear_then_full", "gradual", "norm_and_bias", "lora"]
NORMS: tuple[type[nn.Module], ...] = (  # some of timm's own are torch's too
    _NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    Affine,  # what ResMLP has in place of norms
    *(
        kind
        for module in (evo_norm, filter_response_norm, grn, norm, norm_act)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == module.__name__
    ),
)


@dataclass(frozen=True)
class FineTuning:
    """What of a network is trained. What is frozen stays as in evaluation, and costs no gradient.

    Args:
        strategy: "full" trains everything; "linear_probe" the head alone; "linear_then_full" the head,
            then everything (Kumar et al. 2022); "gradual" the head, then stage after stage, the last
            one first (Howard and Ruder 2018); "norm_and_bias" norms, biases and the head (after Ben
            Zaken et al. 2022); "lora" matrices of low rank beside the trunk's weights, and the head (Hu
            et al. 2022; needs peft).
        head_epochs: Of linear_then_full: epochs of the head alone.
        unfreeze_every: Of gradual: epochs until the next stage is trained too.
        head_lr_factor: The head's learning rate over `model.lr`, such as 10 for a head that starts anew.
        layer_decay: Factor of the learning rate from each layer to the one before it, in (0, 1]; 0.75 is
            customary for transformers (Bao et al. 2022).
        keep_statistics: Batch norms go on with the statistics they came with, in training too: those of
            small batches of a narrow data set may be far from them, and undo what was learned.
        cache_features: Of linear_probe: without augmentation and mixing the head gets the same features
            in each epoch, and they are computed once. False computes them anew.
        lora_rank: Of lora: the rank of what is added to each adapted layer.
        lora_alpha: Of lora: the scale of what is added, over the rank.
        lora_targets: Of lora: how the names of the adapted layers end, such as [qkv, proj]; null takes all
            linear layers below the head, or where there are none all convolutions but depthwise ones.
    """

    strategy: FinetuningStrategy = "full"
    head_epochs: int = 1
    unfreeze_every: int = 1
    head_lr_factor: float = 1.0
    layer_decay: float = 1.0
    keep_statistics: bool = False
    cache_features: bool = True
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, epochs in (("head_epochs", self.head_epochs), ("unfreeze_every", self.unfreeze_every)):
            if epochs < 1:
                raise ValueError(f"model.finetuning.{name} must be at least 1 epoch, got {epochs}")
        for name, number in (("lora_rank", self.lora_rank), ("lora_alpha", self.lora_alpha)):
            if number < 1:
                raise ValueError(
                    f"model.finetuning.{name} must be at least 1, got {number}; a rank of 8 and an alpha of "
                    "16 are customary"
                )
        if self.head_lr_factor <= 0:
            raise ValueError(
                f"model.finetuning.head_lr_factor must be positive, got {self.head_lr_factor}; "
                "10 is customary where the head starts anew"
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"model.finetuning.layer_decay must lie in (0, 1], got {self.layer_decay}; "
                "0.75 is customary for transformers"
            )

    @property
    def unfreezes(self) -> bool:
        """Whether more is trained in later epochs than in the first."""
        return self.strategy in ("linear_then_full", "gradual")

    @property
    def has_rates(self) -> bool:
        """Whether some layers learn at rates of their own."""
        return self.head_lr_factor != 1 or self.layer_decay != 1

    def adapt(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Adds to a network with its first weights what the strategy trains beside them, if anything.

        Raises:
            ValueError: The network has no place for it, or a library is missing.
        """
        if self.strategy == "lora":
            add_adapters(network, image_shape, self.lora_rank, self.lora_alpha, self.lora_targets)

    def trained(self, network: nn.Module, epoch: int) -> set[str]:
        """The names of the parameters that are trained in an epoch, from 0."""
        everything = {name for name, _ in network.named_parameters()}
        head = head_parameters(network)
        if self.strategy == "full" or (self.strategy == "linear_then_full" and epoch >= self.head_epochs):
            return everything
        if self.strategy == "norm_and_bias":
            return head | {name for name in everything if name.endswith("bias")} | norm_names(network)
        if self.strategy == "lora":
            return head | adapter_parameters(network)
        if self.strategy == "gradual":
            depths = layers(network, coarse=True)
            stages = sorted({depths[name] for name in everything - head}, reverse=True)
            open_stages = stages[: epoch // self.unfreeze_every]
            return head | {name for name in everything if depths[name] in open_stages}
        return head

    def apply(self, network: nn.Module, epoch: int) -> None:
        """Freezes what is not trained in that epoch, and puts the network's modules into their modes."""
        if self.strategy == "full" and not self.keep_statistics:
            return
        trained = self.trained(network, epoch)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)
        network.train()
        _evaluate_frozen(network, is_next_frozen=False)
        if self.keep_statistics:
            for module in network.modules():
                if isinstance(module, _NormBase) and module.track_running_stats:
                    module.eval()

    def parameter_groups(self, network: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimizer: every parameter that some epoch trains, at the rate of its layer.

        Biases and norms are not decayed, nor what the network itself names so. A frozen parameter has no
        gradient, and optimizers leave it as it is.
        """
        exempt = set(network.no_weight_decay()) if hasattr(network, "no_weight_decay") else set()  # type: ignore[operator]
        head = head_parameters(network)
        depths = layers(network, coarse=False) if self.layer_decay < 1 else {}
        deepest = max(depths.values(), default=0)
        ever = self.trained(network, epoch=2**31)
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in network.named_parameters():
            if name not in ever:
                continue
            rate = lr * self.layer_decay ** (deepest - depths.get(name, deepest))
            rate *= self.head_lr_factor if name in head else 1
            decay = 0.0 if parameter.ndim <= 1 or name in exempt else weight_decay
            group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
        return list(groups.values())


def as_finetuning(given: FineTuning | Mapping[str, Any]) -> FineTuning:
    """Itself; or made of what a checkpoint holds, which admits no classes of ours."""
    return given if isinstance(given, FineTuning) else FineTuning(**given)


def head_parameters(network: nn.Module) -> set[str]:
    """The names of the classifier's parameters; of several heads those of all."""
    heads = tuple(f"{name}." for name in head_names(network))
    return {name for name, _ in network.named_parameters() if name.startswith(heads)}


def norm_names(network: nn.Module) -> set[str]:
    """The names of all normalisation layers' parameters."""
    return {
        f"{module_name}.{name}"
        for module_name, module in network.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }


def layers(network: nn.Module, coarse: bool) -> dict[str, int]:
    """How deep each parameter lies, from 0: in stages where `coarse`, else in layers or blocks.

    timm's networks say it themselves; those of ours have a stage in each part of `features`.

    Raises:
        ValueError: The network says nothing of its layers.
    """
    if isinstance(network, Network):
        parts = [f"features.{name}." for name, _ in network.features.named_children()]
        return {
            name: next((depth for depth, part in enumerate(parts) if name.startswith(part)), len(parts))
            for name, _ in network.named_parameters()
        }
    try:
        matcher = network.group_matcher(coarse=coarse)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:  # it has none, or none so coarse
        what = "stages" if coarse else "layers"
        raise ValueError(
            f"model.finetuning: {type(network).__name__} does not say which {what} it has; strategy gradual "
            "needs stages and layer_decay < 1 needs layers, all else needs neither"
        ) from error
    depths: dict[str, int] = group_parameters(network, matcher, reverse=True)
    deepest = max(depths.values())
    return {name: depths.get(name, deepest) for name, _ in network.named_parameters()}


def _evaluate_frozen(module: nn.Module, is_next_frozen: bool) -> bool:
    """Whatever trains none of its parameters: its batch norms must not move, nor its dropout draw.

    What has no parameters goes with what comes next, as networks name their parts in order: the dropout
    after position embeddings with the first block, the one before the head with the head.

    Returns:
        Whether the first part is frozen.
    """
    for child in reversed(list(module.children())):
        parameters = list(child.parameters())
        if any(parameter.requires_grad for parameter in parameters):
            is_first_frozen = _evaluate_frozen(child, is_next_frozen)
            is_next_frozen = is_first_frozen and isinstance(child, nn.Sequential | nn.ModuleList)
        elif parameters or is_next_frozen:
            child.eval()
            is_next_frozen = True
    return is_next_frozen
