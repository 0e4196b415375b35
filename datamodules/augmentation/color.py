"""Changes of colour, sharpness and noise, each image of a batch by its own amount.

All take and give float (B, C, H, W) in [0, 1]; amounts are (B,). The `adjust_` functions, `posterize`
and `solarize` are torchvision's of the same name, which take one amount for all images. What concerns
colour alone leaves grey images, C = 1, as they are.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batch_ops import in_pieces

LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue; ITU-R 601, as Pillow and torchvision take it


def luminance(images: Tensor) -> Tensor:
    """The grey image, (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


# By a given amount ------------------------------------------------------------------------------


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Times `factor`; 0 is black, 1 the image."""
    return (images * _each(factor)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean of the grey image; 0 is that mean, 1 the image."""
    return _blend(images, luminance(images).mean((1, 2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the grey image; 0 is that, 1 the image."""
    return images if images.shape[1] != 3 else _blend(images, luminance(images), factor)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the image smoothed over 3x3 pixels; 0 is that, 1 the image. The border stays."""
    if min(images.shape[2:]) < 3:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    # The sum of nine neighbours by rows, then columns; the pixel itself weighs five of 13.
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]).add_(inner, alpha=4).div_(13)
    sharpened = images.clone()
    sharpened[:, :, 1:-1, 1:-1] = _blend(inner, smooth, factor)
    return sharpened


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Around the colour circle of HSV by `turns`, in [-0.5, 0.5]."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    unit = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(
        value == red,
        (green - blue) / unit,
        torch.where(value == green, 2 + (blue - red) / unit, 4 + (red - green) / unit),
    )
    hue = hue + 6 * turns.view(-1, 1, 1)
    # Each channel leaves `value` as the hue moves away from it: the closed form of HSV to RGB.
    channels = []
    for offset in (5, 3, 1):
        position = (hue + offset) % 6
        channels.append(value - chroma * torch.minimum(position, 4 - position).clamp_(0, 1))
    return torch.stack(channels, dim=1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Only the upper `bits` of each byte, from 0 (black) to 8 (all)."""
    step = torch.exp2(8 - _each(bits))
    return (images * 255).round_().div_(step).floor_().mul_(step).div_(255)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Pixels at or above `threshold` are inverted."""
    return torch.where(images >= _each(threshold), 1 - images, images)


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Smoothed by a Gaussian of standard deviation `sigma` pixels, cut off at `radius` pixels."""
    _, _, height, width = images.shape
    for dim, side in ((3, width), (2, height)):
        reach = min(radius, side - 1)  # a reflection shows at most the rest of the image
        offsets = torch.arange(-reach, reach + 1, device=images.device)
        weights = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)  # (B, 2r+1)
        weights = weights / weights.sum(1, keepdim=True)
        padding = (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach)
        padded = F.pad(images, padding, mode="reflect")
        shifted = (padded.narrow(dim, start, side) for start in range(2 * reach + 1))
        images = next(shifted) * _each(weights[:, 0])
        for index, neighbour in enumerate(shifted, start=1):
            images.addcmul_(neighbour, _each(weights[:, index]))
    return images.clamp_(0, 1)  # the weights' rounding


# By a drawn amount ------------------------------------------------------------------------------


def random_jitter(
    images: Tensor,
    generator: torch.Generator,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order, by amounts up to the given ones either way.

    torchvision draws the order as well; with a fixed one, the whole batch is one computation.
    """
    steps = (
        (adjust_brightness, brightness, 1),
        (adjust_contrast, contrast, 1),
        (adjust_saturation, saturation, 1),
        (adjust_hue, hue, 0),
    )
    adjustments, amounts = [], []
    for adjust, largest, neutral in steps:
        if largest > 0:
            draws = torch.rand(len(images), generator=generator, device=images.device) * 2 - 1
            adjustments.append(adjust)
            amounts.append(neutral + largest * draws)

    def jitter(images: Tensor, *amounts: Tensor) -> Tensor:
        for adjust, amount in zip(adjustments, amounts, strict=True):
            images = adjust(images, amount)
        return images

    return in_pieces(jitter, images, *amounts) if amounts else images


def random_grayscale(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Without colour at the given rate, with as many channels as before."""
    draws = torch.rand(len(images), generator=generator, device=images.device)

    def grayscale(images: Tensor, draws: Tensor) -> Tensor:
        return torch.where(_each(draws) < probability, luminance(images), images)

    return in_pieces(grayscale, images, draws)


def random_blur(images: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur of a standard deviation from 0 to `largest` pixels."""
    sigma = torch.rand(len(images), generator=generator, device=images.device) * largest
    return in_pieces(partial(gaussian_blur, radius=math.ceil(3 * largest)), images, sigma)


def random_noise(images: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of a standard deviation from 0 to `largest`, cut to [0, 1]."""
    std = torch.rand(len(images), generator=generator, device=images.device) * largest
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return noise.mul_(_each(std)).add_(images).clamp_(0, 1)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, images, _each(factor)).clamp_(0, 1)


def _each(amounts: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return amounts.view(-1, 1, 1, 1)
