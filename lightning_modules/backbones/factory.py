"""Builds timm or own networks by name."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import timm
import torch
from timm.data import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT
from torch import nn

from ..networks import NETWORKS
from .head import head_names, start_at_zero
from .weight_loading import reason

Initialization = Literal["default", "glorot_uniform"]
# Options of timm's that name a file to load.
LOADING_OPTIONS = ("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")


@cache
def backbone_names() -> tuple[str, ...]:
    """Every name that `build_network` takes, our own first."""
    return (*NETWORKS, *timm.list_models())


def is_backbone(name: str) -> bool:
    """Whether `build_network` takes the name; timm's pretrained tags ("resnet18.a1_in1k") included."""
    return name in NETWORKS or timm.is_model(name)


def pretrained_config(name: str) -> Any | None:
    """What timm knows of the weights that a backbone was pretrained to; None of networks of our own.

    Raises:
        ValueError: The name has a tag that timm has no weights of.
    """
    if name in NETWORKS:
        return None
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        architecture, _, tag = name.partition(".")
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
        there = f"its tags are {', '.join(tags)}" if tags else f"it has none: model.backbone={architecture}"
        raise ValueError(f"model.backbone={name}: {architecture} has no weights {tag!r}; {there}") from error


def backbone_options(name: str) -> set[str] | None:
    """The options our own network of this name takes; None where timm decides."""
    if name not in NETWORKS:
        return None
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def build_network(
    name: str,
    options: dict[str, Any],
    *,
    num_outputs: int,
    image_shape: tuple[int, int, int],
    dropout: float = 0.0,
    pretrained: bool = False,
    initialization: Initialization = "default",
) -> nn.Module:
    """The network, from images (B, C, H, W) to logits (B, num_outputs).

    Raises:
        ValueError: The network can't be built for such images, or with such options.
    """
    if name in NETWORKS:
        unknown = options.keys() - (known := backbone_options(name) or set())
        if unknown:
            raise ValueError(
                f"model.backbone={name} has no option {', '.join(sorted(unknown))}; "
                f"it takes {', '.join(sorted(known)) or 'none'}"
            )
        network: nn.Module = NETWORKS[name](num_outputs, image_shape, dropout, **options)
    else:
        network = _build_timm(name, options, num_outputs, image_shape, dropout, pretrained)
    if initialization == "glorot_uniform":
        network.apply(_initialize_as_keras)
    return network


def pretrained_statistics(name: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels in [0, 1] that a backbone of timm's was pretrained with.

    Raises:
        ValueError: It is a network of our own, which was pretrained on nothing.
    """
    config = pretrained_config(name)
    if config is None:
        raise ValueError(
            f"data.normalization=backbone needs one that timm has weights of; model.backbone={name} has "
            "none, so that dataset or imagenet must do"
        )
    if channels == 1:  # grey images take the average over colours
        return (sum(config.mean) / len(config.mean),), (sum(config.std) / len(config.std),)
    return tuple(config.mean), tuple(config.std)


@dataclass(frozen=True)
class PretrainedView:
    """How timm shows images to a network when it evaluates the weights that it was pretrained to.

    Attributes:
        size: Side in pixels of the images that it was pretrained with.
        interpolation: How images are resized.
        resize: "crop" keeps the aspect and takes the centre, "squash" does not; None where timm does
            something that `data.resize` can't ("border", or a crop of a squashed image).
        crop_fraction: timm's crop_pct; None where it is above 1, which adds a border.
        test: Side and crop fraction that the published accuracy was measured with, where these differ.
    """

    size: int
    interpolation: Literal["bilinear", "bicubic"]
    resize: Literal["squash", "crop"] | None
    crop_fraction: float | None
    test: tuple[int, float] | None

    @property
    def lacking(self) -> str:
        """What no key of the data does, as a clause; empty where nothing is lacking."""
        if self.resize is None:
            return "timm evaluates this backbone on images that it pads, or squashes and then crops"
        return "timm evaluates this backbone with a border" if self.crop_fraction is None else ""


def pretrained_view(name: str) -> PretrainedView | None:
    """How a backbone of timm's saw images in its pretraining; None of all others."""
    config = pretrained_config(name)
    if config is None:
        return None
    size, fraction = int(config.input_size[-1]), float(config.crop_pct or DEFAULT_CROP_PCT)
    test = int((config.test_input_size or config.input_size)[-1]), float(config.test_crop_pct or fraction)
    mode = config.crop_mode or DEFAULT_CROP_MODE
    is_squashed = mode == "squash" and fraction == 1
    return PretrainedView(
        size=size,
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        resize="crop" if mode == "center" else "squash" if is_squashed else None,
        crop_fraction=fraction if fraction <= 1 else None,
        test=test if test != (size, fraction) else None,
    )


def _build_timm(
    name: str,
    options: dict[str, Any],
    num_outputs: int,
    image_shape: tuple[int, int, int],
    dropout: float,
    pretrained: bool,
) -> nn.Module:
    channels, height, width = image_shape
    config = pretrained_config(name)
    if config is not None and config.fixed_input_size:
        options = {"img_size": (height, width), **options}
    try:
        network: nn.Module = timm.create_model(
            name,
            pretrained=pretrained,
            num_classes=num_outputs,
            in_chans=channels,
            drop_rate=dropout,
            **options,
        )
        with torch.no_grad():  # timm looks at the size of images only when they come
            logits = network.eval()(torch.zeros(1, *image_shape))
    except OSError:  # weights that are not available
        raise
    except Exception as error:  # options reach all of a network's code, and may fail anywhere in it
        raise ValueError(
            f"timm can't build model.backbone={name} for images of {channels}x{height}x{width}"
            f"{f' with {options}' if options else ''}: {reason(error)}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_outputs):
        came = "x".join(map(str, logits.shape)) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(
            f"model.backbone={name} with {options} must give logits of 1x{num_outputs} for an image, and "
            f"gives {came}: leave out what takes its head away"
        )
    _check_patches(name, network, height, width)
    if pretrained and config is not None and config.num_classes != num_outputs:
        for head in head_names(network):
            start_at_zero(network.get_submodule(head))
    return network.train()


def _check_patches(name: str, network: nn.Module, height: int, width: int) -> None:
    """timm leaves out the pixels that fill no patch, without a word."""
    embedding = getattr(network, "patch_embed", None)
    cut = getattr(embedding, "proj", getattr(embedding, "conv", None))  # "conv" is PiT's
    pads = getattr(embedding, "dynamic_img_pad", False)
    if getattr(embedding, "patch_size", None) is None or not isinstance(cut, nn.Conv2d) or pads:
        return
    if isinstance(cut.padding, str):  # "same"
        return
    rows, columns = zip(cut.kernel_size, cut.stride, cut.padding, strict=True)
    if unseen(height, *rows) or unseen(width, *columns):
        sides = range(cut.kernel_size[0], height + max(cut.kernel_size))
        fitting = min(
            (side for side in sides if not unseen(side, *rows)), key=lambda side: abs(side - height)
        )
        raise ValueError(
            f"model.backbone={name} cuts images into patches of {rows[0]}x{columns[0]} pixels, and images of "
            f"{height}x{width} leave a rest that it would not see; data.image_size={fitting} fits"
        )


def unseen(side: int, kernel: int, stride: int, padding: int) -> int:
    """Pixels at the end of a side that no place of a convolution's kernel reaches.

    >>> unseen(40, kernel=16, stride=16, padding=0), unseen(64, kernel=7, stride=4, padding=3)
    (8, 0)
    """
    return max(0, (side + 2 * padding - kernel) % stride - padding)


def _initialize_as_keras(module: nn.Module) -> None:
    # Keras' defaults: Glorot and Bengio 2010, equation 16, and no bias.
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
