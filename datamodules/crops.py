"""Random-resized crops: a part of random area and shape of each image, resized to one size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules.sizing import resize

RATIOS = (3 / 4, 4 / 3)  # of width to height (Szegedy et al. 2015, section 6)
TRIES = 10


def draw_boxes(sizes: Tensor, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Where to crop: top, left, height and width in pixels, int64 (B, 4).

    The area is uniform in `scale`, the logarithm of the ratio uniform between 3/4 and 4/3; of ten draws
    the first that lies within the image counts, else the largest central part of a ratio within those
    bounds (as torchvision's RandomResizedCrop does).

    Args:
        sizes: Heights and widths, (B, 2).
        scale: Least and greatest share of the image's area.
        generator: On the CPU.
    """
    heights, widths = sizes.double().T[:, :, None]  # (B, 1) each
    draws = torch.rand(4, len(sizes), TRIES, generator=generator, dtype=torch.float64)
    area = heights * widths * (scale[0] + draws[0] * (scale[1] - scale[0]))  # (B, TRIES)
    low, high = map(math.log, RATIOS)
    ratio = torch.exp(low + draws[1] * (high - low))
    crop_widths, crop_heights = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
    fits = (crop_widths >= 1) & (crop_heights >= 1) & (crop_widths <= widths) & (crop_heights <= heights)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits; 0 where none does
    height, width = crop_heights.gather(1, first), crop_widths.gather(1, first)
    top = (draws[2].gather(1, first) * (heights - height + 1)).floor()
    left = (draws[3].gather(1, first) * (widths - width + 1)).floor()
    drawn = torch.cat([top, left, height, width], dim=1)
    # As wide or as high as the bounds on the ratio let it be.
    full_height = torch.minimum(heights, (widths / RATIOS[0]).round())
    full_width = torch.minimum(widths, (heights * RATIOS[1]).round())
    margins = [((heights - full_height) / 2).floor(), ((widths - full_width) / 2).floor()]
    central = torch.cat([*margins, full_height, full_width], dim=1)
    return torch.where(fits.any(1, keepdim=True), drawn, central).long()


def random_resized_crops(images: Tensor, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A crop of each image of a batch, at the size of the whole: uint8 (B, C, H, W) to the same."""
    shape = (images.shape[2], images.shape[3])
    boxes = draw_boxes(torch.tensor([shape]).expand(len(images), 2), scale, generator).tolist()
    parts = [
        image[:, top : top + height, left : left + width].permute(1, 2, 0)
        for image, (top, left, height, width) in zip(images, boxes, strict=True)
    ]
    return torch.stack([resize(part, shape, "bilinear") for part in parts]).permute(0, 3, 1, 2)
