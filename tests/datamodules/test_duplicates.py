"""Duplicates: copies are found whatever was done to them, and different pictures are left alone."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from datamodules import Digits, duplicates
from datamodules.duplicates import MIRRORING, compare, find_duplicates, near_duplicates, perceptual_hashes
from datamodules.measures import measure

RNG = np.random.default_rng(0)


def test_a_hash_is_the_low_corner_of_the_cosine_transform_whose_norm_is_the_smoothed_deviation():
    thumbnails = RNG.integers(0, 256, (5, 32, 32), dtype=np.uint8)
    frequencies = scipy.fft.dctn(thumbnails.astype(float), axes=(1, 2), norm="ortho")
    expected = frequencies[:, :8, :8].reshape(5, 64)[:, 1:] / 32
    np.testing.assert_allclose(perceptual_hashes(thumbnails), expected, atol=1e-3)
    smoothed = np.zeros_like(frequencies)
    smoothed[:, :8, :8] = frequencies[:, :8, :8]
    deviations = scipy.fft.idctn(smoothed, axes=(1, 2), norm="ortho").std((1, 2))
    np.testing.assert_allclose(np.linalg.norm(perceptual_hashes(thumbnails), axis=1), deviations, rtol=1e-4)


def test_the_mirrored_hash_is_the_hash_of_the_mirror_image():
    thumbnails = RNG.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    expected = perceptual_hashes(thumbnails[:, :, ::-1])
    np.testing.assert_allclose(perceptual_hashes(thumbnails) * MIRRORING, expected, atol=1e-3)


def test_compare_gives_pearsons_correlation_and_the_residual_of_a_least_squares_fit():
    rows = RNG.normal(size=(2, 6, 100))
    first, second = rows - rows.mean(2, keepdims=True)
    second = 0.5 * second + first
    correlation, difference = compare(first, second)
    for place in range(6):
        one, other = first[place], second[place]
        assert correlation[place] == pytest.approx(np.corrcoef(one, other)[0, 1])
        long, short = sorted((one, other), key=np.linalg.norm, reverse=True)
        _, residual, *_ = np.linalg.lstsq(long[:, None], short)
        assert difference[place] == pytest.approx(np.sqrt(residual[0]))


def test_chunked_search_finds_what_a_loop_over_all_pairs_finds(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", 7)
    originals = smooth_pictures(40)
    noisy = originals[:25].astype(int) + RNG.integers(-12, 13, (25, 32, 32))
    thumbnails = np.concatenate([originals, noisy.clip(0, 255).astype(np.uint8), originals[30:33, :, ::-1]])
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(float)
    mirrored = thumbnails[:, :, ::-1].reshape(len(thumbnails), -1).astype(float)
    expected = {
        (one, other)
        for one in range(len(pixels))
        for other in range(one + 1, len(pixels))
        if any(same_picture(pixels[one], side[other]) for side in (pixels, mirrored))
    }
    found = near_duplicates(thumbnails)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected
    assert len(expected) >= 20


def test_equal_images_pair_with_the_first_of_them_and_come_first():
    thumbnails = smooth_pictures(6)
    thumbnails[[2, 5]] = thumbnails[0]
    thumbnails[4] = np.clip(thumbnails[1].astype(int) + 2, 0, 255)
    found = find_duplicates(thumbnails, [bytes(each) for each in thumbnails])
    assert list(zip(found.first, found.second, found.equal, strict=True)) == [
        (0, 2, True),
        (0, 5, True),
        (1, 4, False),
    ]
    assert found.difference[:2].tolist() == [0, 0]


def test_images_of_one_colour_are_equal_or_nothing_to_each_other():
    flat = np.stack([np.full((32, 32), level, np.uint8) for level in (0, 0, 90, 91, 255)])
    found = find_duplicates(flat, [bytes(each) for each in flat])
    assert list(zip(found.first, found.second, strict=True)) == [(0, 1)]


def test_a_thousand_equal_images_make_no_million_of_pairs():
    same = np.repeat(smooth_pictures(1), 1000, axis=0)
    assert len(find_duplicates(same, [b"same"] * 1000)) == 999


def test_the_bundled_digits_are_all_different():
    data = Digits()
    data.setup()
    found = measure(torch.cat([store.images for store in data.splits.values()]))
    assert len(find_duplicates(found.thumbnails, found.digests)) == 0


# Photographs -------------------------------------------------------------------------------------

Photo = NDArray[np.uint8]  # (H, W, 3)


def encode_again(photo: Photo) -> Photo:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def resize(photo: Photo) -> Photo:
    image = Image.fromarray(photo)
    return np.asarray(image.resize((77, 77)).resize(image.size))


def brighten(photo: Photo) -> Photo:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(photo)).enhance(1.15))


def drain_colour(photo: Photo) -> Photo:
    return np.asarray(ImageOps.grayscale(Image.fromarray(photo)).convert("RGB"))


def mirror(photo: Photo) -> Photo:
    return photo[:, ::-1]


@pytest.fixture(scope="module")
def flowers() -> Photo:
    """300 photographs of 128x128, (N, H, W, 3), none of them twice."""
    if "DARKROOM_DATA" not in os.environ:
        pytest.skip("DARKROOM_DATA is not set")
    folder = Path(os.environ["DARKROOM_DATA"]) / "flowers5_128" / "train"
    paths = sorted(folder.rglob("*.jpg"))[::11][:300]
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def test_photographs_hold_no_duplicates_of_each_other(flowers):
    assert len(find(flowers)) == 0


@pytest.mark.parametrize("change", [encode_again, resize, brighten, drain_colour, mirror])
def test_copies_of_photographs_are_found_and_nothing_else_is(change, flowers):
    before = find(flowers)
    copies = np.stack([change(photo) for photo in flowers[:100]])
    found = find(np.concatenate([flowers, copies]))
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    planted = {(place, len(flowers) + place) for place in range(100)}
    assert len(planted & pairs) >= 95
    assert len(pairs - planted) <= len(before)
    if change is mirror:
        assert found.mirrored.sum() >= 95


def find(photos: Photo) -> duplicates.Pairs:
    found = measure(torch.from_numpy(photos).permute(0, 3, 1, 2))
    return find_duplicates(found.thumbnails, found.digests)


def smooth_pictures(count: int) -> NDArray[np.uint8]:
    """Pictures without fine detail, each its own, uint8 (N, 32, 32)."""
    coarse = torch.from_numpy(RNG.uniform(0, 255, (count, 1, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")
    return fine.squeeze(1).clamp(0, 255).byte().numpy()


def same_picture(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """The rule, by numpy's correlation."""
    correlation = np.corrcoef(one, other)[0, 1]
    difference = min(one.std(), other.std()) * np.sqrt(1 - min(correlation, 1) ** 2)
    return bool(correlation >= duplicates.MIN_CORRELATION and difference <= duplicates.MAX_DIFFERENCE)
