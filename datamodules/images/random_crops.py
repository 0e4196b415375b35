"""Random resized crops."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .resizing import resize

TRIES = 10
RATIO = (3 / 4, 4 / 3)  # of width to height, as it is customary


def draw_boxes(
    sizes: Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float] = RATIO,
    *,
    generator: torch.Generator,
) -> Tensor:
    """One crop for each image (Szegedy et al. 2015, section 6, as torchvision's RandomResizedCrop).

    Args:
        sizes: Height and width of each image in pixels, int64 (B, 2).
        scale: Smallest and largest area, as a share of the image's.
        ratio: Smallest and largest width over height, drawn evenly in its logarithm.
        generator: Of the draws.

    Returns:
        int64 (B, 4): top, left, height, width in pixels. Where none of 10 tries fits into the image,
        the largest central crop of an allowed aspect.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be a range within (0, 1], got {scale}; (0.08, 1) is customary")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio must be a range above 0, got {ratio}; (3/4, 4/3) is customary")
    height, width = sizes.double().unbind(1)  # (B,), float64: areas stay exact
    draws = torch.rand(4, TRIES, len(sizes), generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + draws[0] * (scale[1] - scale[0]))  # (10, B)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + draws[1] * (high - low))
    box_height, box_width = torch.sqrt(area / aspect).round(), torch.sqrt(area * aspect).round()
    fits = (box_height > 0) & (box_height <= height) & (box_width > 0) & (box_width <= width)
    first = fits.int().argmax(0, keepdim=True)  # (1, B)
    fallback = _central(height, width, ratio)
    found = fits.any(0)
    chosen_height = torch.where(found, box_height.gather(0, first)[0], fallback[0])
    chosen_width = torch.where(found, box_width.gather(0, first)[0], fallback[1])
    shift_y, shift_x = draws[2:].gather(1, first.expand(2, -1, -1)).squeeze(1)  # (B,) in [0, 1)
    room_y, room_x = height - chosen_height, width - chosen_width
    top = torch.where(found, (shift_y * (room_y + 1)).floor(), (room_y / 2).floor())
    left = torch.where(found, (shift_x * (room_x + 1)).floor(), (room_x / 2).floor())
    return torch.stack([top, left, chosen_height, chosen_width], dim=1).long()


def _central(height: Tensor, width: Tensor, ratio: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The largest height and width of an allowed aspect."""
    aspect = width / height
    narrowed = torch.where(aspect > ratio[1], (height * ratio[1]).round(), width)
    shortened = torch.where(aspect < ratio[0], (width / ratio[0]).round(), height)
    return shortened.clamp(min=1), narrowed.clamp(min=1)


def random_resized_crops(images: Tensor, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A crop of each image of a batch in memory, at the size of the whole: uint8 (B, C, H, W) to the same."""
    height, width = images.shape[2:]
    sizes = torch.tensor([[height, width]]).expand(len(images), 2)
    boxes = draw_boxes(sizes, scale, generator=generator).tolist()
    crops = [
        resize(image[:, :, top : top + rows, left : left + columns], height, width, "bilinear")
        for image, (top, left, rows, columns) in zip(torch.split(images, 1), boxes, strict=True)
    ]
    return torch.cat(crops).contiguous(memory_format=torch.channels_last)
