"""Scikit-learn's 1,797 handwritten digits of 8x8 pixels: bundled, no download."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..base import ImageDataModule
from ..images.store import ImageStore, without_pixels
from ..splitting.splitters import hold_out

TEST_FRACTION = 0.2


class Digits(ImageDataModule):
    """The bundled digits (Alpaydin and Kaynak 1998, as scikit-learn ships them).

    They come without a test set: a fifth is held out by a hash of the id alone, the same images for
    every seed and configuration.
    """

    class_names = tuple(str(digit) for digit in range(10))
    source_shape = (1, 8, 8)
    num_source_images = 1797

    def load(self) -> dict[str, ImageStore]:
        from sklearn.datasets import load_digits  # a second of imports that other sources need not pay

        bunch = load_digits()
        images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
        everything = ImageStore(images, torch.from_numpy(bunch.target.astype(np.int64)), self._ids())
        in_test = torch.from_numpy(self._in_test(bunch.target))
        return {"train": everything.subset(~in_test), "test": everything.subset(in_test)}

    def listed(self) -> dict[str, ImageStore]:
        in_test = self._in_test(np.zeros(self.num_source_images, dtype=np.int64))
        return {"train": without_pixels(self._ids()).subset(torch.from_numpy(~in_test))}

    def _ids(self) -> list[str]:
        return [f"digits/{index:04d}" for index in range(self.num_source_images)]

    def _in_test(self, targets: NDArray[np.int64]) -> NDArray[np.bool_]:
        return hold_out(self._ids(), targets, TEST_FRACTION, purpose="test", seed=0)
