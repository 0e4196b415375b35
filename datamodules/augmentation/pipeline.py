"""Augmentation settings and the order of operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .color import random_blur, random_grayscale, random_jitter, random_noise
from .geometry import random_affine, random_crop, random_erasing, random_flip
from .policies import aug_mix, rand_augment, trivial_augment

Policy = Literal["randaugment", "trivialaugment", "augmix"]
# Each policy's function, and those of its knobs that only it reads.
POLICIES: dict[Policy, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "randaugment": (rand_augment, ("num_ops", "magnitude")),
    "trivialaugment": (trivial_augment, ()),
    "augmix": (aug_mix, ("severity", "mixture_width", "chain_depth")),
}
# Each knob's least and largest value; None is no limit.
RANGES: dict[str, tuple[float, float | None, str]] = {
    "crop_padding": (0, None, "pixels"),
    "horizontal_flip": (0, 1, ""),
    "vertical_flip": (0, 1, ""),
    "rotation": (0, 180, "degrees"),
    "translation": (0, 0.9, ""),
    "zoom": (0, 0.9, ""),
    "shear": (0, 60, "degrees"),
    "num_ops": (1, None, ""),
    "magnitude": (0, 30, ""),
    "severity": (0.1, 10, ""),
    "mixture_width": (1, None, ""),
    "chain_depth": (1, None, ""),
    "brightness": (0, 1, ""),
    "contrast": (0, 1, ""),
    "saturation": (0, 1, ""),
    "hue": (0, 0.5, "turns"),
    "grayscale": (0, 1, ""),
    "blur": (0, 20, "pixels"),
    "noise": (0, 1, ""),
    "erasing": (0, 1, ""),
}


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image, drawn anew for each image and epoch.

    It happens in the order of the arguments, on pixels in [0, 1]; crop and flips before the image is
    resized, all else after. What is 0 or null costs nothing.

    Args:
        resized_crop: Range of the share of the area that a crop keeps before it is resized to
            `data.image_size`, such as [0.08, 1]; applied by the loader, where the whole image is at hand.
        crop_padding: Pixels of black added on each side before a crop of the original size.
        horizontal_flip: Probability of mirroring left and right.
        vertical_flip: Probability of mirroring top and bottom.
        rotation: Largest rotation either way, in degrees.
        translation: Largest shift either way, as a fraction of the side.
        zoom: Largest change of scale either way, as a fraction: 0.1 scales by 0.9 to 1.1.
        shear: Largest slant either way along each axis, in degrees.
        policy: Operations drawn for each image from a published list: "randaugment" (Cubuk et al. 2020),
            "trivialaugment" (Mueller and Hutter 2021; it has no knobs) or "augmix" (Hendrycks et al.
            2020).
        num_ops: Of randaugment: operations in a row for each image; null is 2.
        magnitude: Of randaugment: strength of them all, from 0 to 30; null is 9.
        severity: Of augmix: largest strength of an operation, from 0.1 to 10; null is 3.
        mixture_width: Of augmix: chains of operations mixed into one image; null is 3.
        chain_depth: Of augmix: operations in each chain; null draws one to three.
        brightness: Largest change of brightness either way, as a fraction: 0.4 multiplies by 0.6 to 1.4.
        contrast: Largest change of contrast either way, as a fraction.
        saturation: Largest change of saturation either way, as a fraction; grey images have none.
        hue: Largest shift around the colour circle either way, in turns, up to 0.5; grey images have none.
        grayscale: Probability of taking the colour out.
        blur: Largest standard deviation of a Gaussian blur, in pixels; each image draws one from 0 to it.
        noise: Largest standard deviation of Gaussian noise on pixels in [0, 1], drawn likewise.
        erasing: Probability of covering a rectangle of 2 to 33 % of the area with one random colour
            (Zhong et al. 2020).
    """

    resized_crop: tuple[float, float] | None = None
    crop_padding: int = 0
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation: float = 0.0
    translation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    policy: Policy | None = None
    num_ops: int | None = None
    magnitude: float | None = None
    severity: float | None = None
    mixture_width: int | None = None
    chain_depth: int | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        for knob in RANGES:
            self._check_range(knob)
        self._check_policy()
        if self.resized_crop is not None:
            least, most = self.resized_crop
            if not 0 < least <= most <= 1:
                raise ValueError(
                    "augmentation.resized_crop must be two shares of the area, smaller first, in (0, 1], "
                    f"got {list(self.resized_crop)}; [0.08, 1] is customary"
                )

    def _check_range(self, knob: str) -> None:
        value = getattr(self, knob)
        least, most, unit = RANGES[knob]
        if value is None or (least <= value and (most is None or value <= most)):
            return
        allowed = f"be at least {least}" if most is None else f"lie in [{least}, {most}]"
        raise ValueError(f"augmentation.{knob} must {allowed}{unit and f' {unit}'}, got {value}")

    def _check_policy(self) -> None:
        if self.policy is not None and self.policy not in POLICIES:
            raise ValueError(
                f"augmentation.policy must be one of {', '.join(POLICIES)} or null, got {self.policy!r}"
            )
        for policy, (_, knobs) in POLICIES.items():
            for knob in knobs:
                if policy != self.policy and getattr(self, knob) is not None:
                    raise ValueError(
                        f"augmentation.{knob} is read by policy {policy} alone, and policy is "
                        f"{self.policy or 'null'}; leave {knob} out, or choose that policy"
                    )

    @property
    def moves_pixels(self) -> bool:
        """Whether any single knob needs resampling between pixels."""
        return self.rotation > 0 or self.translation > 0 or self.zoom > 0 or self.shear > 0

    @property
    def changes_pixels(self) -> bool:
        """Whether anything is left to do once whole pixels have been moved."""
        single = (self.brightness, self.contrast, self.saturation, self.hue, self.grayscale)
        others = (self.blur, self.noise, self.erasing)
        return self.moves_pixels or self.policy is not None or any(knob > 0 for knob in (*single, *others))

    @property
    def policy_options(self) -> dict[str, Any]:
        """The knobs of the chosen policy that were given."""
        knobs = POLICIES[self.policy][1] if self.policy else ()
        return {knob: getattr(self, knob) for knob in knobs if getattr(self, knob) is not None}


def crop_and_flip(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Shifts by whole pixels and mirrors: exact, on any dtype, (B, C, H, W) to the same shape."""
    if augmentation.crop_padding > 0:
        images = random_crop(images, augmentation.crop_padding, generator)
    if augmentation.horizontal_flip > 0:
        images = random_flip(images, augmentation.horizontal_flip, 3, generator)
    if augmentation.vertical_flip > 0:
        images = random_flip(images, augmentation.vertical_flip, 2, generator)
    return images


def change_pixels(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """All that needs arithmetic: float (B, C, H, W) in [0, 1], C = 1 or 3, to the same."""
    chosen = augmentation
    if chosen.moves_pixels:
        pixels = random_affine(
            pixels, generator, chosen.rotation, chosen.translation, chosen.zoom, chosen.shear
        )
    if chosen.policy is not None:
        policy, _ = POLICIES[chosen.policy]
        pixels = policy(pixels, generator, **chosen.policy_options)
    pixels = random_jitter(
        pixels, generator, chosen.brightness, chosen.contrast, chosen.saturation, chosen.hue
    )
    if chosen.grayscale > 0:
        pixels = random_grayscale(pixels, chosen.grayscale, generator)
    if chosen.blur > 0:
        pixels = random_blur(pixels, chosen.blur, generator)
    if chosen.noise > 0:
        pixels = random_noise(pixels, chosen.noise, generator)
    if chosen.erasing > 0:
        pixels = random_erasing(pixels, chosen.erasing, generator)
    return pixels
