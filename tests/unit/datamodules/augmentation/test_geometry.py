"""Rectangles are erased as the article draws them, and grids are torch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from darkroom.datamodules.augmentation.geometry import affine_grid, random_erasing


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 12), (1, 3)])
def test_the_grid_is_torchs(height: int, width: int) -> None:
    theta = torch.rand(4, 6, generator=generator()) * 2 - 1
    expected = F.affine_grid(theta.view(4, 2, 3), [4, 3, height, width], align_corners=False)
    torch.testing.assert_close(affine_grid(theta, height, width), expected, atol=1e-6, rtol=0)


# Erasing ----------------------------------------------------------------------------------------


def rectangles(
    count: int, channels: int, height: int, width: int
) -> tuple[Tensor, list[tuple[int, int, int, int]]]:
    """The result of erasing everywhere, and each rectangle's top, left, height and width."""
    images = torch.full((count, channels, height, width), -1.0)
    out = random_erasing(images, 1.0, generator())
    found = []
    for image in out:
        rows, columns = (image[0] >= 0).nonzero(as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        tall, wide = int(rows.max()) - top + 1, int(columns.max()) - left + 1
        assert len(rows) == tall * wide  # filled, and one
        found.append((top, left, tall, wide))
    return out, found


def test_one_rectangle_of_one_colour_covers_each_image_and_each_has_its_own() -> None:
    out, found = rectangles(200, 3, 30, 40)
    assert len(set(found)) > 190
    colours = []
    for image, (top, left, tall, wide) in zip(out, found, strict=True):
        inside = image[:, top : top + tall, left : left + wide].flatten(1)
        assert (inside == inside[:, :1]).all()
        colours.append(inside[:, 0])
    assert stats.kstest(torch.stack(colours).flatten().numpy(), "uniform").pvalue > 1e-3


def test_areas_and_ratios_are_those_of_the_article() -> None:
    _, found = rectangles(1500, 1, 100, 100)
    tall, wide = np.array(found)[:, 2:].T
    ratio = tall / wide
    assert 0.28 < ratio.min() < 0.33
    assert 3.0 < ratio.max() < 3.6
    whole = (tall < 100) & (wide < 100)  # the longest are cut to the side
    assert whole.mean() > 0.97
    assert stats.kstest((tall * wide / 1e4)[whole], "uniform", (0.02, 0.31)).pvalue > 1e-3
    assert stats.kstest(np.log(ratio[whole]), "uniform", (math.log(0.3), -2 * math.log(0.3))).pvalue > 1e-3


def test_areas_are_shares_of_oblong_images_too() -> None:
    for height, width in ((50, 100), (100, 50)):
        tall, wide = np.array(rectangles(1000, 1, height, width)[1])[:, 2:].T
        shares = tall * wide / 5000
        assert 0.015 < shares.min() < 0.03
        assert 0.31 < shares.max() < 0.34


def test_places_are_drawn_evenly_up_to_the_border() -> None:
    _, found = rectangles(3000, 1, 20, 20)
    tops, lefts, tall, wide = np.array(found).T
    for starts, lengths in ((tops, tall), (lefts, wide)):
        small = lengths == 8
        assert stats.chisquare(np.bincount(starts[small], minlength=13)).pvalue > 1e-3
        assert (starts + lengths).max() == 20


@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_images_are_erased_at_the_stated_rate_and_otherwise_untouched(probability: float) -> None:
    images = torch.full((3000, 3, 8, 8), -1.0)
    erased = (random_erasing(images, probability, generator()) >= 0).flatten(1).any(1)
    deviation = math.sqrt(probability * (1 - probability) / 3000)
    assert erased.float().mean().item() == pytest.approx(probability, abs=4 * deviation)


def test_single_pixels_are_taken() -> None:
    assert (random_erasing(torch.full((5, 1, 1, 1), -1.0), 1.0, generator()) >= 0).all()
