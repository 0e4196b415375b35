"""Mixup and CutMix."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def mix(
    images: Tensor, targets: Tensor, generator: torch.Generator, *, mixup: float = 0.0, cutmix: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Each image mixed with another one of the batch, and the targets in the same proportion.

    One share is drawn for the batch from Beta(alpha, alpha), and one permutation for the partners, as
    in the authors' code of both methods. Where both alphas are above 0, a fair coin chooses the method.
    The formulas are torchvision's and timm's too, whose draws come from global generators.

    Args:
        images: Float (B, C, H, W); they may be normalised, for mixing is linear.
        targets: Float (B, C): each class's share, or each label's 0 or 1.
        generator: On the CPU.
        mixup: Alpha of mixup (Zhang et al. 2018), 0 for none.
        cutmix: Alpha of CutMix (Yun et al. 2019), 0 for none.

    Returns:
        Images and targets, of the same shapes. A batch of one or none stays as it is.
    """
    if len(targets) < 2 or not (mixup or cutmix):
        return images, targets
    cuts = cutmix > 0 and (mixup == 0 or bool(torch.rand((), generator=generator) < 0.5))
    share = draw_share(cutmix if cuts else mixup, generator)
    partners = torch.randperm(len(targets), generator=generator).to(images.device)
    if cuts:
        height, width = images.shape[2:]
        row, column = torch.rand(2, generator=generator).tolist()
        rows, columns, share = box(height, width, share, (int(row * height), int(column * width)))
        mixed = images.clone()
        mixed[:, :, rows, columns] = images[:, :, rows, columns][partners]
    else:
        mixed = share * images + (1 - share) * images[partners]
    return mixed, share * targets + (1 - share) * targets[partners]


def draw_share(alpha: float, generator: torch.Generator) -> float:
    """From Beta(alpha, alpha); torch's own sampler takes no generator, so numpy's is seeded from it."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def box(height: int, width: int, share: float, centre: tuple[int, int]) -> tuple[slice, slice, float]:
    """The rows and columns to cut, and the share of the image that stays (Yun et al. 2019, equation 2).

    The box has the image's proportions; what lies beyond the border is cut off, so that more may stay
    than was asked for.

    >>> box(8, 8, 0.75, (4, 4))
    (slice(2, 6, None), slice(2, 6, None), 0.75)
    >>> box(8, 8, 0.75, (0, 4))
    (slice(0, 2, None), slice(2, 6, None), 0.875)
    """
    half = 0.5 * math.sqrt(1 - share)
    (top, bottom), (left, right) = (
        (max(middle - int(half * side), 0), min(middle + int(half * side), side))
        for middle, side in zip(centre, (height, width), strict=True)
    )
    stays = 1 - (bottom - top) * (right - left) / (height * width)
    return slice(top, bottom), slice(left, right), stays
