"""RandAugment, TrivialAugment and AugMix: operations drawn anew for each image of a batch.

Every image draws its operations and their strengths; then each operation runs once, on those images
that drew it. All take and give float (B, C, H, W) in [0, 1], C = 1 or 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ..batch_ops import images_at_once
from .color import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_sharpness,
    posterize,
    solarize,
)
from .geometry import affine_grid, resample

# The five that move pixels come first: they share one resampling.
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": adjust_brightness,
    "color": adjust_saturation,
    "contrast": adjust_contrast,
    "sharpness": adjust_sharpness,
}
OPERATIONS = (*MOVES, *BLENDS, "posterize", "solarize", "autocontrast", "equalize", "identity")


@dataclass(frozen=True)
class OperationRanges:
    """What strength 1 means for each operation.

    Args:
        shear: Slope, about the upper left corner.
        translation: Fraction of the side.
        translation_pixels: Pixels, added to the fraction.
        rotation: Degrees.
        blend: Change of the factor of brightness, color, contrast and sharpness.
        bits: Left by posterize at strength 0 and at 1.
    """

    shear: float
    rotation: float
    bits: tuple[int, int]
    blend: float = 0.0
    translation: float = 0.0
    translation_pixels: int = 0


# The figures are torchvision's, but for AugMix's strengths, which are those of its authors' code.
RAND_AUGMENT = OperationRanges(shear=0.3, rotation=30, bits=(8, 4), blend=0.9, translation=150 / 331)
TRIVIAL_AUGMENT_WIDE = OperationRanges(
    shear=0.99, rotation=135, bits=(8, 2), blend=0.99, translation_pixels=32
)
AUG_MIX = OperationRanges(shear=0.3, rotation=30, bits=(4, 0), translation=1 / 3)
# AugMix leaves out what is near the corruptions that its article tests on.
AUG_MIX_OPERATIONS = (*MOVES, "posterize", "solarize", "autocontrast", "equalize")


def rand_augment(
    images: Tensor, generator: torch.Generator, num_ops: int = 2, magnitude: float = 9.0
) -> Tensor:
    """`num_ops` of 14 operations, all at strength `magnitude` / 30 (Cubuk et al. 2020)."""
    shape, device = (num_ops, len(images)), images.device
    operations = torch.randint(len(OPERATIONS), shape, generator=generator, device=device)
    strengths = _signs(shape, generator) * (magnitude / 30)
    return apply_operations(images.clone(), operations, strengths, RAND_AUGMENT)


def trivial_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """One of 14 operations, at one of 31 strengths (TrivialAugment Wide, Mueller and Hutter 2021)."""
    shape, device = (1, len(images)), images.device
    operations = torch.randint(len(OPERATIONS), shape, generator=generator, device=device)
    sizes = torch.randint(31, shape, generator=generator, device=device) / 30
    strengths = _signs(shape, generator) * sizes
    return apply_operations(images.clone(), operations, strengths, TRIVIAL_AUGMENT_WIDE)


def aug_mix(
    images: Tensor,
    generator: torch.Generator,
    severity: float = 3.0,
    mixture_width: int = 3,
    chain_depth: int | None = None,
) -> Tensor:
    """The image mixed with `mixture_width` chains of operations on it (Hendrycks et al. 2020).

    A chain has `chain_depth` operations, or one to three where that is None, each of a strength up to
    `severity` / 10. The weights are drawn as in the article, Dirichlet and Beta of alpha 1. The
    article's Jensen-Shannon loss is not part of this.
    """
    count, device = len(images), images.device
    shape = (chain_depth or 3, mixture_width * count)
    kept = torch.tensor([OPERATIONS.index(name) for name in AUG_MIX_OPERATIONS], device=device)
    operations = kept[torch.randint(len(kept), shape, generator=generator, device=device)]
    strengths = torch.rand(shape, generator=generator, device=device) * (severity - 0.1) + 0.1
    if chain_depth is None:
        depths = torch.randint(1, 4, shape[1:], generator=generator, device=device)
        ended = torch.arange(shape[0], device=device)[:, None] >= depths
        operations = operations.where(~ended, OPERATIONS.index("identity"))
    strengths = _signs(shape, generator) * strengths / 10
    chains = apply_operations(images.repeat(mixture_width, 1, 1, 1), operations, strengths, AUG_MIX)
    # Exponential draws over their sum are Dirichlet of alpha 1; Beta of alpha 1 is uniform.
    weights = torch.empty(mixture_width, count, device=device).exponential_(generator=generator)
    share = torch.rand(count, generator=generator, device=device)
    weights = weights / weights.sum(0) * share
    mixed = images * (1 - share).view(-1, 1, 1, 1)
    for chain, weight in zip(chains.chunk(mixture_width), weights, strict=True):
        mixed.addcmul_(chain, weight.view(-1, 1, 1, 1))
    return mixed.clamp_(0, 1)  # the weights' rounding


def apply_operations(images: Tensor, operations: Tensor, strengths: Tensor, space: OperationRanges) -> Tensor:
    """Each image through its own operations, one after another, in place.

    Args:
        images: (B, C, H, W), which are changed and returned.
        operations: (N, B), the N operations of each image as positions in `OPERATIONS`.
        strengths: (N, B) in [-1, 1]; the sign is the direction, where an operation has one.
        space: What strength 1 means.
    """
    order = operations.argsort(dim=1, stable=True)  # (N, B), images of one operation side by side
    # The host needs to know how many drew what: the only wait for the device.
    counts = F.one_hot(operations, len(OPERATIONS)).sum(1).tolist()
    for step, sizes in enumerate(counts):
        moving = sum(sizes[: len(MOVES)])
        names = ("move", *OPERATIONS[len(MOVES) :])
        for name, group in zip(names, torch.split(order[step], [moving, *sizes[len(MOVES) :]]), strict=True):
            if len(group) == 0 or name == "identity":
                continue
            for chosen in torch.split(group, images_at_once(images)):
                before, amounts = images.index_select(0, chosen), strengths[step, chosen]
                if name == "move":
                    after = _move(operations[step, chosen], before, amounts, space)
                else:
                    after = _recolour(name, before, amounts, space)
                images.index_copy_(0, chosen, after)
    return images


def _move(operations: Tensor, images: Tensor, strengths: Tensor, space: OperationRanges) -> Tensor:
    """The five operations that move pixels, each image its own."""
    height, width = images.shape[2:]

    def where(name: str, amount: Tensor) -> Tensor:
        return amount.where(operations == OPERATIONS.index(name), 0.0)

    slope_x = where("shear_x", strengths * space.shear)
    slope_y = where("shear_y", strengths * space.shear)
    reach_x, reach_y = (space.translation * side + space.translation_pixels for side in (width, height))
    shift_x = where("translate_x", (strengths * reach_x).trunc())  # whole pixels
    shift_y = where("translate_y", (strengths * reach_y).trunc())
    angle = torch.deg2rad(where("rotate", strengths * space.rotation))
    cos, sin, aspect = torch.cos(angle), torch.sin(angle), height / width
    # About the upper left corner, one half side up and left, a slope also shifts.
    x_by_y, y_by_x = slope_x * aspect, slope_y / aspect
    to_x = [cos, x_by_y - sin * aspect, x_by_y - 2 / width * shift_x]
    to_y = [y_by_x + sin / aspect, cos, y_by_x - 2 / height * shift_y]
    return resample(images, affine_grid(torch.stack(to_x + to_y, dim=1), height, width))


def _recolour(name: str, images: Tensor, strengths: Tensor, space: OperationRanges) -> Tensor:
    """One operation that keeps pixels in their places."""
    if name in BLENDS:
        return BLENDS[name](images, 1 + strengths * space.blend)
    if name == "posterize":
        most, least = space.bits
        return posterize(images, (most - strengths.abs() * (most - least)).round())
    if name == "solarize":
        return solarize(images, 1 - strengths.abs())
    changed: Tensor = TF.autocontrast(images) if name == "autocontrast" else TF.equalize(images)
    return changed


def _signs(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """-1 or 1, evenly."""
    return torch.randint(2, shape, generator=generator, device=generator.device) * 2 - 1
