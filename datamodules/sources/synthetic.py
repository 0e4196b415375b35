"""Generated shapes on noise: images for tests and benchmarks, without a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..base import ImageDataModule
from ..images.store import ImageStore, without_pixels

Floats = NDArray[np.float32]
# Each from coordinates in [-1, 1] around the centre to whether a pixel is inside.
SHAPES: dict[str, Callable[[Floats, Floats], NDArray[np.bool_]]] = {
    "disc": lambda x, y: x**2 + y**2 < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "triangle": lambda x, y: (y < 0.8) & (y > 2 * abs(x) - 1),
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.4),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "bar": lambda x, y: (abs(y) < 0.3) & (abs(x) < 1),
}


class Synthetic(ImageDataModule):
    """Shapes of random place, size and colour, one an image, or of multi-label tasks any number.

    Args:
        num_images: For training and validation; a quarter as many are for the test.
        num_classes: 2 to 6 of disc, square, triangle, ring, cross and bar.
        side: Height and width in pixels.
        grayscale: One channel instead of three.
        multilabel: Draw each shape, or don't, in every image; the labels say which are there.
        noise: Standard deviation of the noise, as a fraction of the range of pixels.
    """

    def __init__(
        self,
        num_images: int = 2000,
        num_classes: int = 3,
        side: int = 32,
        grayscale: bool = False,
        multilabel: bool = False,
        noise: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 2 <= num_classes <= len(SHAPES):
            raise ValueError(f"data.num_classes must lie in [2, {len(SHAPES)}], got {num_classes}")
        if num_images < 4 * num_classes:
            raise ValueError(f"data.num_images must be at least {4 * num_classes}, got {num_images}")
        if side < 8:
            raise ValueError(f"data.side must be at least 8 pixels, got {side}")
        if not 0 <= noise <= 1:
            raise ValueError(f"data.noise must lie in [0, 1], got {noise}")
        self.num_images = num_images
        self.class_names = tuple(SHAPES)[:num_classes]
        self.source_shape = (1 if grayscale else 3, side, side)
        self.multilabel = multilabel
        self.noise = noise

    def listed(self) -> dict[str, ImageStore]:
        return {
            part: without_pixels(self._ids(part, count), torch.from_numpy(self._targets(part, count)))
            for part, count in self._counts().items()
        }

    def load(self) -> dict[str, ImageStore]:
        return {part: self._draw(part, count) for part, count in self._counts().items()}

    def _counts(self) -> dict[str, int]:
        return {"train": self.num_images, "test": self.num_images // 4}

    def _ids(self, part: str, count: int) -> list[str]:
        return [f"{part}/{index:06d}" for index in range(count)]

    def _targets(self, part: str, count: int) -> NDArray[Any]:
        generator = np.random.default_rng([part == "test", count])
        num_classes = len(self.class_names)
        if self.multilabel:
            return (generator.random((count, num_classes)) < 0.4).astype(np.float32)
        return generator.permutation(np.arange(count, dtype=np.int64) % num_classes)

    def _draw(self, part: str, count: int) -> ImageStore:
        generator = np.random.default_rng([2 + (part == "test"), count])
        channels, side, _ = self.source_shape
        targets = self._targets(part, count)
        present = targets if self.multilabel else np.eye(len(self.class_names))[targets]  # (N, C)
        rows, columns = np.mgrid[:side, :side].astype(np.float32)
        images = generator.normal(0.35, self.noise, (count, channels, side, side)).astype(np.float32)
        for image, shapes in zip(images, present, strict=True):
            for label in np.flatnonzero(shapes):
                radius = side * generator.uniform(0.18, 0.3)
                top, left = generator.uniform(radius, side - radius, 2)
                inside = SHAPES[self.class_names[label]]((columns - left) / radius, (rows - top) / radius)
                image[:, inside] += generator.uniform(0.2, 0.5, (channels, 1)).astype(np.float32)
        pixels = torch.from_numpy((images.clip(0, 1) * 255).round().astype(np.uint8))
        return ImageStore(pixels, torch.from_numpy(targets), self._ids(part, count))
