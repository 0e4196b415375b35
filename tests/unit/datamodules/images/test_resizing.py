"""Resizing and centre crops are torchvision's, close to Pillow's, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.images import centre
from torchvision.transforms import v2

from darkroom.datamodules.images.resizing import Interpolation, Sizing, fit, fitted_size, fitted_sizes


def smooth(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [127 + 120 * np.sin((5 + c) * x + (9 - c) * y) for c in range(channels)]
    return np.stack(waves, axis=2).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (40, 70), (256, 300), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_is_timms_resize_and_centre_crop(height: int, width: int, interpolation: Interpolation) -> None:
    image, sizing = smooth(height, width), Sizing(224, "crop", interpolation=interpolation)
    fitted = fit(image, sizing)
    assert fitted.shape == (*fitted_size(height, width, sizing), 3)
    assert min(fitted.shape[:2]) == 256
    view = centre(fitted, sizing)
    theirs = v2.Compose(
        [v2.Resize(256, v2.InterpolationMode(interpolation), antialias=True), v2.CenterCrop(224)]
    )
    expected = np.asarray(theirs(Image.fromarray(image)))  # by Pillow
    assert view.shape == (224, 224, 3)
    assert np.abs(view.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_squash_is_pillows_resize(channels: int, interpolation: str) -> None:
    image = smooth(90, 170, channels)
    sizing = Sizing(64, "squash", interpolation=interpolation, channels=channels)  # type: ignore[arg-type]
    method = Image.Resampling[interpolation.upper()]
    expected = np.asarray(Image.fromarray(image.squeeze()).resize((64, 64), method)).reshape(64, 64, channels)
    fitted = fit(image, sizing)
    assert np.abs(fitted.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(centre(fitted, sizing), fitted)


def test_nearest_keeps_the_values_there_are() -> None:
    image = np.random.default_rng(0).choice([3, 200], (50, 61, 1)).astype(np.uint8)
    assert set(np.unique(fit(image, Sizing(32, "squash", interpolation="nearest", channels=1)))) == {3, 200}


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    image = smooth(32, 32)
    np.testing.assert_array_equal(fit(image, Sizing(32, "squash")), image)


def test_the_number_of_threads_changes_no_pixel() -> None:
    image, sizing, before = smooth(700, 900), Sizing(224, "crop"), torch.get_num_threads()
    alone = fit(image, sizing)
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(fit(image, sizing), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_sizes_of_many_images_are_those_of_each(resize: str) -> None:
    sizes = torch.randint(1, 6000, (5000, 2), generator=torch.Generator().manual_seed(0))
    sizes[:500, 0] = sizes[:500, 1]
    for size, crop_fraction in [(224, 0.875), (299, 0.9), (33, 1.0)]:
        sizing = Sizing(size, resize, crop_fraction)  # type: ignore[arg-type]
        expected = [fitted_size(height, width, sizing) for height, width in sizes.tolist()]
        assert torch.equal(fitted_sizes(sizes, sizing), torch.tensor(expected))


def test_an_image_decoded_at_a_fraction_keeps_the_aspect_of_the_whole() -> None:
    assert fit(smooth(251, 334), Sizing(100, "crop"), original_size=(1001, 1335)).shape == (114, 152, 3)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"size": 0}, "size"),
        ({"resize": "stretch"}, "resize"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"interpolation": "lanczos"}, "interpolation"),
        ({"channels": 4}, "channels"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Sizing(**{"size": 32, "resize": "crop", **arguments})  # type: ignore[arg-type]
