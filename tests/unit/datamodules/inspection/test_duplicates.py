"""Duplicates: copies are found whatever was done to them, and different pictures are left alone."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from darkroom.datamodules import Digits
from darkroom.datamodules.inspection import duplicates
from darkroom.datamodules.inspection.duplicates import (
    MIRRORING,
    find_duplicates,
    near_duplicates,
    perceptual_hashes,
    same_picture,
    structure_hashes,
)
from darkroom.datamodules.inspection.image_statistics import measure

RNG = np.random.default_rng(0)
Photo = NDArray[np.uint8]  # (H, W, 3)


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


def test_the_structure_is_what_no_polynomial_of_degree_four_explains():
    thumbnails = RNG.integers(0, 256, (5, 32, 32), dtype=np.uint8)
    left = np.stack([residual(each.reshape(-1).astype(float), light(32)) for each in thumbnails])
    expected = scipy.fft.dctn(left.reshape(5, 32, 32), axes=(1, 2), norm="ortho")[:, :8, :8]
    np.testing.assert_allclose(structure_hashes(thumbnails), expected.reshape(5, 64)[:, 1:] / 32, atol=1e-3)


def test_small_thumbnails_differ_by_the_residual_of_a_least_squares_fit():
    first = RNG.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    second = (0.4 * first + RNG.integers(0, 60, first.shape)).astype(np.uint8)
    _, difference = same_picture(first, second)
    for place in range(6):
        rows = [each[place].reshape(-1) - each[place].mean() for each in (first, second)]
        long, short = sorted(rows, key=np.linalg.norm, reverse=True)
        expected = np.linalg.norm(residual(short, long[:, None])) / 8
        assert difference[place] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("right", "down", "outwards"), [(0.4, -0.3, 0), (0, 0, 0.03), (-0.5, 0, -0.02)])
def test_small_moves_are_fitted_and_large_ones_are_not(right, down, outwards):
    rows, columns = np.mgrid[-1:1:32j, -1:1:32j]

    def picture(moved: float) -> NDArray[np.uint8]:
        x = columns * (1 + moved * outwards) + moved * right / 15.5
        y = rows * (1 + moved * outwards) + moved * down / 15.5
        waves = np.sin(7 * x + 2 * y) + np.sin(9 * y - 3 * x) + np.cos(8 * x * y + 5 * y)
        return (127 + 40 * waves).round().astype(np.uint8)[None]

    same, difference = same_picture(picture(0), picture(1))
    assert same.all()
    assert difference < 1.5
    assert not same_picture(picture(0), picture(8))[0].any()


def test_chunked_search_finds_what_a_loop_over_all_pairs_finds(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 3)
    originals = smooth_pictures(40)
    noisy = originals[:25].astype(int) + RNG.integers(-12, 13, (25, 32, 32))
    thumbnails = np.concatenate([originals, noisy.clip(0, 255).astype(np.uint8), originals[30:33, :, ::-1]])
    expected = {
        (one, other)
        for one in range(len(thumbnails))
        for other in range(one + 1, len(thumbnails))
        if any(by_the_rule(thumbnails[one], side[other]) for side in (thumbnails, thumbnails[:, :, ::-1]))
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


# Plates and tracks --------------------------------------------------------------------------------


def plates(texture: float, smoothing: float) -> Photo:
    """200 plates under one light, each with a fine texture of its own, (N, 128, 128, 3)."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[0:1:128j, 0:1:128j]
    grain = scipy.ndimage.gaussian_filter(random.normal(size=(200, 128, 128)), (0, smoothing, smoothing))
    grey = 60 + 100 * columns + 40 * rows + grain * texture / grain.std()
    return np.repeat(grey.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)


@pytest.mark.parametrize(("texture", "smoothing"), [(3, 1), (6, 0), (6, 3), (12, 1)])
def test_plates_that_share_their_light_are_no_duplicates_and_copies_of_them_are(texture, smoothing):
    smooth = plates(texture, smoothing)
    copies = np.stack([change(plate) for change in (encode_again, brighten, mirror) for plate in smooth[:40]])
    found = find(np.concatenate([smooth, copies]))
    # All pairs of a plate and its copies, and of the copies of one plate.
    of = np.concatenate([np.arange(200), np.tile(np.arange(40), 3)])
    assert (of[found.first] == of[found.second]).all()
    originals = found.select(found.first < 200)
    assert len(originals) >= 0.95 * len(copies)


MOVES = [(1, 0, 1), (1, 1, 1), (2, 0, 1), (2, -2, 1), (0, 0, 1.03), (1, -1, 0.98)]


def frame(scene: NDArray[np.uint8], right: float, down: float, zoom: float, side: int) -> Photo:
    """What a camera sees of a scene (H, W) or (H, W, 3), around its centre, stored as a JPEG."""
    middle, half = scene.shape[0] / 2, side / 2 / zoom
    box = (middle - half + right, middle - half + down, middle + half + right, middle + half + down)
    seen = Image.fromarray(scene).resize((side, side), Image.Resampling.BICUBIC, box=box)
    return encode_again(np.asarray(seen.convert("RGB")))


def found_of_neighbours(scenes: NDArray[np.uint8], move: tuple[float, float, float], side: int) -> int:
    first = np.stack([frame(scene, 0, 0, 1, side) for scene in scenes])
    second = np.stack([frame(scene, *move, side) for scene in scenes])
    found = find(np.concatenate([first, second]))
    assert (found.second - found.first == len(scenes)).all()  # nothing but neighbours
    return len(found)


@pytest.mark.parametrize("move", MOVES)
def test_neighbouring_frames_of_a_track_are_found_and_nothing_else_is(move):
    noise = np.random.default_rng(6).normal(size=(60, 144, 144))
    octaves = [scipy.ndimage.gaussian_filter(noise, (0, width, width)) * width for width in (3, 8, 20)]
    scenes = (127 + 80 * sum(octaves)).round().clip(0, 255).astype(np.uint8)
    assert found_of_neighbours(scenes, move, side=128) >= 57


# Photographs -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("move", MOVES)
def test_neighbouring_frames_of_photographs_are_found_and_nothing_else_is(move, flowers):
    assert found_of_neighbours(flowers[:100], move, side=112) >= 95


def find(photos: Photo) -> duplicates.Pairs:
    found = measure(torch.from_numpy(photos).permute(0, 3, 1, 2))
    return find_duplicates(found.thumbnails, found.digests)


def smooth_pictures(count: int) -> NDArray[np.uint8]:
    """Pictures without fine detail, each its own, uint8 (N, 32, 32)."""
    coarse = torch.from_numpy(RNG.uniform(0, 255, (count, 1, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")
    return fine.squeeze(1).clamp(0, 255).byte().numpy()


def light(side: int) -> NDArray[np.float64]:
    """Monomials up to degree 4 over a thumbnail, (S * S, 15)."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].reshape(2, -1)
    return np.stack([y**i * x**j for i in range(5) for j in range(5 - i)], axis=1)


def residual(target: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return target - columns @ np.linalg.lstsq(columns, target)[0]


def by_the_rule(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """The rule, by numpy's least squares and R squared."""
    side = one.shape[0]
    down, right = np.gradient((one.astype(float) + other) / 2)
    radius = np.linspace(-1, 1, side)
    moves = [one, right, down, right * radius + down * radius[:, None]]
    columns = np.stack([np.asarray(each, float).reshape(-1) for each in moves], axis=1)
    target, ones = other.reshape(-1).astype(float), np.ones((side**2, 1))
    correlations = []
    for background in (ones, light(side)):
        left = residual(target, np.concatenate([background, columns], axis=1)).var()
        correlations.append(np.sqrt(1 - left / residual(target, background).var()))
    weights = np.linalg.lstsq(np.concatenate([columns, ones], axis=1), target)[0]
    difference = min(one.std(), other.std()) * np.sqrt(1 - correlations[0] ** 2)
    return bool(
        correlations[0] >= duplicates.MIN_CORRELATION
        and correlations[1] >= duplicates.MIN_STRUCTURE
        and difference <= duplicates.MAX_DIFFERENCE
        and np.abs(weights[1:4]).max() <= duplicates.MAX_MOVE * weights[0]
    )
