"""Crops, flips, affine maps and erased rectangles, drawn anew for each image of a batch.

All take and give (B, C, H, W) and draw from the generator alone, which lives on the images' device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batch_ops import in_pieces, take

ONE_BY_ONE = 2**14  # values of an image from which on it is mirrored alone, in down to a quarter of the time
# Zhong et al. 2020, section 4.2: share of the area, and height over width.
ERASED_AREA = (0.02, 0.33)
ERASED_RATIO = (0.3, 1 / 0.3)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """A window of the original size out of the image with `padding` pixels of black around; any dtype."""
    count, *shape = images.shape
    padded = F.pad(images, (padding,) * 4)  # (B, C, H + 2p, W + 2p)
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator, device=images.device)
    sample, channel, row, column = padded.stride()
    starts = torch.arange(count, device=images.device) * sample + top * row + left * column
    last = (count - 1) * sample + 2 * padding * (row + column)
    windows = padded.as_strided((last + 1, *shape), (1, channel, row, column))  # wherever one may start
    return take(windows, starts)


def random_flip(images: Tensor, probability: float, dim: int, generator: torch.Generator) -> Tensor:
    """Mirrored left and right (`dim` 3) or top and bottom (2) at the given rate; any dtype."""
    draws = torch.rand(len(images), generator=generator, device=images.device)
    mirrored = draws < probability
    if images.device.type != "cpu":
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(dim), images)
    if images[0].numel() < ONE_BY_ONE:
        places = torch.arange(len(images)) + len(images) * mirrored
        return take(torch.cat([images, images.flip(dim)]), places)
    images = images.clone()
    for place in mirrored.nonzero().flatten().tolist():
        images[place] = images[place].flip(dim - 1)
    return images


def random_affine(
    images: Tensor,
    generator: torch.Generator,
    rotation: float = 0.0,
    translation: float = 0.0,
    zoom: float = 0.0,
    shear: float = 0.0,
) -> Tensor:
    """One affine map for each float image, about its centre; the ranges are those of `Augmentation`."""
    count, _, height, width = images.shape
    draws = torch.rand(4, count, generator=generator, device=images.device) * 2 - 1  # in [-1, 1)
    angle = torch.deg2rad(draws[0] * rotation)
    scale = 1 / (1 + draws[1] * zoom)
    # grid_sample measures in half sides, so a shift by a fraction of the side counts twice.
    shift_x, shift_y = draws[2:] * 2 * translation
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    xx, xy, yx, yy = cos, -sin, sin, cos
    if shear > 0:  # drawn only where asked for: the draws after these would change
        slopes = torch.rand(2, count, generator=generator, device=images.device) * 2 - 1
        slope_x, slope_y = torch.tan(torch.deg2rad(slopes * shear))
        xx, xy, yx, yy = xx + xy * slope_y, xx * slope_x + xy, yx + yy * slope_y, yx * slope_x + yy
    aspect = height / width
    theta = torch.stack([xx, xy * aspect, shift_x, yx / aspect, yy, shift_y], dim=1).view(count, 2, 3)

    def read(images: Tensor, theta: Tensor) -> Tensor:
        # Slower than our `affine_grid`, but recorded accuracies rest on its rounding.
        return resample(images, F.affine_grid(theta, list(images.shape), align_corners=False))

    return in_pieces(read, images, theta)


def resample(images: Tensor, grid: Tensor) -> Tensor:
    """Float images read at the places of a grid, (B, H, W, 2), bilinear, black beyond the border."""
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def affine_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Where an affine map reads, (B, H, W, 2): torch's of the same name in 0.4 of the time.

    Args:
        theta: (B, 6), the rows of a 2x3 matrix from output (x, y) to input (x, y), both in half sides
            from the centre.
        height: Of the images, in pixels.
        width: Likewise.
    """
    x, y = ((torch.arange(side, device=theta.device) * 2 + 1) / side - 1 for side in (width, height))
    xx, xy, x0, yx, yy, y0 = theta[:, :, None, None].unbind(1)  # (B, 1, 1) each
    rows = y[:, None]
    return torch.stack([(xx * x + x0) + xy * rows, (yx * x + y0) + yy * rows], dim=3)


def random_erasing(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """A rectangle of one random colour over a float image, at the given rate (Zhong et al. 2020).

    The article fills with noise; one colour drawn for each image is timm's "rand" mode, and costs
    nothing. A rectangle too long for the image is cut to its side, where the article draws again.
    """
    count, channels, height, width = images.shape
    chance, area, ratio, top, left, *colour = torch.rand(
        5 + channels, count, generator=generator, device=images.device
    )
    pixels = height * width * (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0]))
    low, high = (math.log(bound) for bound in ERASED_RATIO)
    elongation = torch.exp(low + ratio * (high - low))
    tall = (pixels * elongation).sqrt().round().clamp(1, height)
    wide = (pixels / elongation).sqrt().round().clamp(1, width)
    inside = _between(top, tall, height)[:, :, None] & _between(left, wide, width)[:, None, :]
    erased = inside & (chance < probability).view(-1, 1, 1)  # (B, H, W)
    return torch.where(erased[:, None], torch.stack(colour, dim=1)[:, :, None, None], images)


def _between(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Which of `side` positions lie in a stretch of `length`, placed by `start` in [0, 1): (B, side)."""
    first = (start * (side - length + 1)).floor()[:, None]
    positions = torch.arange(side, device=start.device)
    return (positions >= first) & (positions < first + length[:, None])
