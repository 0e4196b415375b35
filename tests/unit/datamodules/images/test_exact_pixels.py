"""Images in files are shown as timm's evaluation shows them: the same pixels, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from timm.data import create_transform

from darkroom.datamodules.images.cache import open_images
from darkroom.datamodules.images.readers import FileOriginals
from darkroom.datamodules.images.resizing import Sizing, fitted_size

MODES = {"crop": "center", "squash": "squash"}
SMALL, ODD, LARGE = (40, 30), (333, 501), (900, 711)  # width and height


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of all sizes, formats and modes: generated, with edges and saturated areas, where filters overshoot."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    files = []

    def save(name: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> None:
        noise = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        blurred = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3)), dtype=float)
        pixels = np.clip((blurred - 127) * 12 + 127, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name, **options)
        files.append(folder / name)

    save("small.jpg", SMALL, quality=90)
    save("odd.jpg", ODD, quality=95, subsampling=0)
    save("portrait.jpg", ODD[::-1], quality=75)
    save("large.jpg", LARGE, quality=90)
    save("progressive.jpg", LARGE[::-1], quality=85, progressive=True)
    save("grey.jpg", ODD, "L", quality=90)
    save("cmyk.jpg", ODD, "CMYK", quality=90)
    save("colours.png", ODD)
    save("palette.png", ODD, "P")
    save("grey.png", ODD, "L")
    return files


def shown(files: list[Path], sizing: Sizing, cache: Path, gib: float = 1.0) -> torch.Tensor:
    originals = FileOriginals(files, [file.name for file in files])
    images, bad = open_images(
        originals, sizing, folder=cache, budget_bytes=int(gib * 2**30), threads=2, say=lambda line: None
    )
    assert not bad
    return images[torch.arange(len(images))]


def by_timm(file: Path, size: int, mode: str, fraction: float, interpolation: str) -> NDArray[np.uint8]:
    transform = create_transform(
        size, crop_pct=fraction, crop_mode=mode, interpolation=interpolation, normalize=False
    )
    return np.asarray(transform(Image.open(file).convert("RGB")))


@pytest.mark.parametrize(
    ("size", "resize", "fraction", "interpolation"),
    [
        (64, "crop", 0.875, "bicubic"),
        (64, "crop", 0.9, "bicubic"),
        (75, "crop", 0.95, "bilinear"),
        (64, "crop", 1.0, "bicubic"),
        (64, "squash", 1.0, "bicubic"),
    ],
)
def test_evaluation_sees_timms_pixels(
    photographs: list[Path], size: int, resize: str, fraction: float, interpolation: str, tmp_path: Path
) -> None:
    sizing = Sizing(size, resize, fraction, interpolation)  # type: ignore[arg-type]
    seen = shown(photographs, sizing, tmp_path)
    streamed = shown(photographs, sizing, tmp_path / "streamed", gib=0.0)
    assert torch.equal(seen, streamed)
    for file, pixels in zip(photographs, seen.numpy(), strict=True):
        expected = by_timm(file, size, MODES[resize], fraction, interpolation)
        np.testing.assert_array_equal(pixels, expected, err_msg=file.name)


def test_fast_decoding_gives_other_pixels_of_large_jpegs(photographs: list[Path], tmp_path: Path) -> None:
    exact = shown(photographs, Sizing(64, "crop", 0.875, "bicubic"), tmp_path).float()
    fast = shown(photographs, Sizing(64, "crop", 0.875, "bicubic", decoding="fast"), tmp_path).float()
    apart = (exact - fast).abs().mean((1, 2, 3))
    whole = ("small.jpg", "cmyk.jpg")  # too small to be decoded at a fraction, and decoded by Pillow
    scaled = torch.tensor([file.suffix == ".jpg" and file.name not in whole for file in photographs])
    assert apart[~scaled].max() < 0.5  # of 255 levels: two filters' rounding alone
    assert apart[scaled].min() > 0.5


def test_the_shorter_side_is_rounded_as_timm_rounds_it() -> None:
    for fraction in (0.875, 0.887, 0.9, 0.904, 0.95, 0.965, 1.0):
        for size in range(32, 513, 7):
            resize = create_transform(size, crop_pct=fraction, interpolation="bilinear").transforms[0]
            assert resize.size == Sizing(size, "crop", fraction).shorter_side, (size, fraction)
    for fraction in (0.9, 0.965):  # the longer side too
        for size in (64, 75, 224):
            image = Image.new("RGB", (397, 251))
            resize = create_transform(size, crop_pct=fraction, interpolation="nearest").transforms[0]
            width, height = resize(image).size
            assert fitted_size(251, 397, Sizing(size, "crop", fraction)) == (height, width)
    assert Sizing(224, "crop", 0.9).shorter_side == 248
    assert Sizing(224, "crop", 0.9, decoding="fast").shorter_side == 249  # as of record version 1
