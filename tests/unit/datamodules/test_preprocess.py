"""Resizing, scaling and normalising are what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as TF

from darkroom.datamodules.preprocess import IMAGENET_STATISTICS, Preprocess, statistics_for


def colour_images(height: int = 9, width: int = 9) -> torch.Tensor:
    shape = (4, 3, height, width)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_pixels_are_scaled_then_normalised_by_channel() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    out = Preprocess(mean, std)(colour_images())
    pixels = colour_images().numpy() / 255.0
    expected = (pixels - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [5, 16])
def test_resizing_is_torchvisions_antialiased_bilinear(size: int) -> None:
    preprocess = Preprocess((0.0,) * 3, (1.0,) * 3, image_size=size)
    images = colour_images(9, 12)
    expected = TF.resize(images / 255, [size, size], antialias=True)
    torch.testing.assert_close(preprocess(images), expected)


def test_it_moves_and_saves_with_its_statistics() -> None:
    source = Preprocess((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    restored = Preprocess((0.0,) * 3, (1.0,) * 3)
    restored.load_state_dict(source.state_dict())
    assert torch.equal(restored(colour_images()), source(colour_images()))


def test_each_normalisation_stands_for_its_statistics() -> None:
    measured = ((0.4,), (0.2,))
    assert statistics_for("dataset", 1, measured) == measured
    assert statistics_for("unit", 3, ((), ())) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert statistics_for("imagenet", 3, ((), ())) == IMAGENET_STATISTICS
    (mean,), (std,) = statistics_for("imagenet", 1, ((), ()))
    assert (mean, std) == pytest.approx((np.mean([0.485, 0.456, 0.406]), np.mean([0.229, 0.224, 0.225])))
