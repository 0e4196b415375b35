"""Per-sample randomness on whole batches, on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image, drawn anew for each image and epoch.

    Args:
        crop_padding: Pixels of black added on each side before a crop of the original size.
        horizontal_flip: Probability of mirroring left and right.
        rotation: Largest rotation either way, in degrees.
        translation: Largest shift either way, as a fraction of the side.
        zoom: Largest change of scale either way, as a fraction: 0.1 scales by 0.9 to 1.1.
    """

    crop_padding: int = 0
    horizontal_flip: float = 0.0
    rotation: float = 0.0
    translation: float = 0.0
    zoom: float = 0.0

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ValueError(f"augmentation.crop_padding must be at least 0, got {self.crop_padding}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"augmentation.rotation must lie in [0, 180] degrees, got {self.rotation}")
        for name in ("horizontal_flip", "translation", "zoom"):
            value = getattr(self, name)
            upper = 1.0 if name == "horizontal_flip" else 0.9
            if not 0 <= value <= upper:
                raise ValueError(f"augmentation.{name} must lie in [0, {upper}], got {value}")

    @property
    def moves_pixels(self) -> bool:
        """Whether any knob needs resampling between pixels."""
        return self.rotation > 0 or self.translation > 0 or self.zoom > 0


def crop_and_flip(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Shifts by whole pixels and mirrors: exact, on any dtype, (B, C, H, W) to the same shape."""
    count, _, height, width = images.shape
    padding = augmentation.crop_padding
    if padding > 0:
        padded = F.pad(images, (padding,) * 4)  # (B, C, H + 2p, W + 2p)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2p+1, 2p+1, H, W)
        top, left = torch.randint(2 * padding + 1, (2, count), generator=generator, device=images.device)
        images = windows[torch.arange(count, device=images.device), :, top, left]
    if augmentation.horizontal_flip > 0:
        draws = torch.rand(count, generator=generator, device=images.device)
        mirrored = (draws < augmentation.horizontal_flip).view(count, 1, 1, 1)
        images = torch.where(mirrored, images.flip(3), images)
    return images


def rotate_shift_zoom(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """One affine map for each image, bilinear, black beyond the border: float (B, C, H, W)."""
    count, _, height, width = images.shape
    draws = torch.rand(4, count, generator=generator, device=images.device) * 2 - 1  # in [-1, 1)
    angle = torch.deg2rad(draws[0] * augmentation.rotation)
    scale = 1 / (1 + draws[1] * augmentation.zoom)
    # grid_sample measures in half sides, so a shift by a fraction of the side counts twice.
    shift_x, shift_y = draws[2:] * 2 * augmentation.translation
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    aspect = height / width
    rows = [cos, -sin * aspect, shift_x, sin / aspect, cos, shift_y]
    theta = torch.stack(rows, dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
