"""One look at each image measures what numpy and Pillow measure, however many are read at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.datamodules.inspection import image_statistics
from darkroom.datamodules.inspection.image_statistics import measure

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (7, 3, 40, 56), dtype=np.uint8)


def test_brightness_and_contrast_are_those_of_pillows_grey_image():
    found = measure(torch.from_numpy(PHOTOS))
    for place, photo in enumerate(PHOTOS):
        grey = np.asarray(Image.fromarray(photo.transpose(1, 2, 0)).convert("L")) / 255
        assert found.brightness[place] == pytest.approx(grey.mean(), abs=1 / 255)
        assert found.contrast[place] == pytest.approx(grey.std(), abs=1 / 255)


def test_channel_statistics_are_those_over_all_pixels():
    mean, std = measure(torch.from_numpy(PHOTOS)).channel_statistics()
    pixels = PHOTOS.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(mean, pixels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(1), rtol=1e-5)


def test_thumbnails_are_what_pillow_makes_of_the_grey_image():
    found = measure(torch.from_numpy(PHOTOS))
    assert found.thumbnails.shape == (7, 32, 32)
    for thumbnail, photo in zip(found.thumbnails, PHOTOS, strict=True):
        grey = Image.fromarray(photo.transpose(1, 2, 0)).convert("L")
        expected = np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(thumbnail - expected).max() <= 2


@pytest.mark.parametrize(("side", "expected"), [(4, 8), (8, 8), (28, 28), (32, 32), (200, 32)])
def test_thumbnails_are_no_larger_than_the_images(side, expected):
    found = measure(torch.zeros(1, 1, side, side, dtype=torch.uint8))
    assert found.thumbnails.shape == (1, expected, expected)


def test_digests_are_equal_exactly_where_pixels_are():
    images = torch.from_numpy(PHOTOS).clone()
    images[3] = images[0]
    images[4] = images[0]
    images[4, 2, 39, 55] ^= 1
    digests = measure(images).digests
    assert digests[3] == digests[0]
    assert len({*digests}) == 6


def test_images_read_a_few_at_a_time_measure_the_same(monkeypatch):
    class OnDisk:
        """Gives batches by int64 places, and nothing else."""

        shape = PHOTOS.shape
        batches: list[int] = []  # noqa: RUF012

        def __getitem__(self, places: torch.Tensor) -> torch.Tensor:
            assert places.dtype == torch.int64
            self.batches.append(len(places))
            return torch.from_numpy(PHOTOS)[places]

    monkeypatch.setattr(image_statistics, "CHUNK_BYTES", 3 * PHOTOS[0].size)
    on_disk = OnDisk()
    found, expected = measure(on_disk), measure(torch.from_numpy(PHOTOS))
    assert on_disk.batches == [3, 3, 1]
    for name, values in vars(found).items():
        np.testing.assert_array_equal(values, getattr(expected, name))


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        measure(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))
