"""Each image is changed by its own amount, and as torchvision, Pillow and scipy change it by that amount."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from darkroom.datamodules.augmentation import color

FACTORS = [0.0, 0.3, 1.0, 1.4, 1.9]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(count: int, channels: int = 3, height: int = 21, width: int = 30) -> Tensor:
    """Smooth colours with some noise, as bytes over 255."""
    coarse = torch.rand((count, channels, 5, 6), generator=generator(3))
    pixels = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator(4))
    return (pixels.clamp(0, 1) * 255).round() / 255


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


# By a given amount ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
def test_adjusting_is_torchvisions_by_the_same_factor(name: str, channels: int) -> None:
    images = photographs(len(FACTORS), channels)
    results = getattr(color, f"adjust_{name}")(images, torch.tensor(FACTORS))
    for image, result, factor in zip(images, results, FACTORS, strict=True):
        expected = getattr(TF, f"adjust_{name}")(image, factor)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_adjusting_is_pillows_to_within_its_rounding(
    name: str, enhance: Callable[..., ImageEnhance._Enhance]
) -> None:
    images = photographs(len(FACTORS))
    results = getattr(color, f"adjust_{name}")(images, torch.tensor(FACTORS))
    for image, result, factor in zip(images, results, FACTORS, strict=True):
        expected = np.asarray(enhance(pillow(image)).enhance(factor)).transpose(2, 0, 1)
        # Pillow rounds the grey or smoothed image, then the blend of it.
        np.testing.assert_allclose(result * 255, expected, atol=2.01)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.07, 0.5])
def test_a_hue_shift_is_torchvisions_and_that_of_the_standard_library(turns: float) -> None:
    images = photographs(4)
    images[0, :, :2] = 0.5  # grey and black have no hue
    images[1, :, :2] = 0
    results = color.adjust_hue(images, torch.full((4,), turns))
    torch.testing.assert_close(results, TF.adjust_hue(images, turns), atol=1e-5, rtol=0)
    for place in [(0, 1, 1), (1, 0, 5), (2, 10, 11), (3, 20, 29)]:
        image, row, column = place
        hue, saturation, value = colorsys.rgb_to_hsv(*images[image, :, row, column].tolist())
        expected = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        assert results[image, :, row, column].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterizing_is_pillows(bits: int) -> None:
    every_byte = torch.arange(256).expand(3, -1).reshape(1, 3, 16, 16) / 255
    expected = np.asarray(ImageOps.posterize(pillow(every_byte[0]), bits)).transpose(2, 0, 1)
    result = color.posterize(every_byte, torch.tensor([bits]))
    np.testing.assert_allclose(result[0] * 255, expected, atol=1e-4)


@pytest.mark.parametrize("threshold", [1, 100, 128, 255])
def test_solarizing_is_pillows(threshold: int) -> None:
    every_byte = torch.arange(256).expand(3, -1).reshape(1, 3, 16, 16) / 255
    expected = np.asarray(ImageOps.solarize(pillow(every_byte[0]), threshold)).transpose(2, 0, 1)
    result = color.solarize(every_byte, torch.tensor([threshold / 255]))
    np.testing.assert_allclose(result[0] * 255, expected, atol=1e-4)


def test_each_image_of_a_batch_is_blurred_by_its_own_sigma() -> None:
    images, sigmas = photographs(4), [0.0, 0.4, 1.0, 2.0]
    results = color.gaussian_blur(images, torch.tensor(sigmas), radius=6)
    torch.testing.assert_close(results[0], images[0], atol=1e-6, rtol=0)
    for image, result, sigma in list(zip(images, results, sigmas, strict=True))[1:]:
        expected = TF.gaussian_blur(image, [13, 13], [sigma, sigma])
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
        scipys = ndimage.gaussian_filter(
            image.double().numpy(), (0, sigma, sigma), radius=(0, 6, 6), mode="mirror"
        )
        np.testing.assert_allclose(result, scipys, atol=1e-5)


def test_images_narrower_than_the_blur_are_taken() -> None:
    assert color.gaussian_blur(torch.rand(2, 3, 2, 1), torch.tensor([3.0, 9.0]), radius=27).shape == (
        2,
        3,
        2,
        1,
    )


def test_luminance_is_pillows_to_within_its_rounding() -> None:
    images = photographs(3)
    for image, grey in zip(images, color.luminance(images), strict=True):
        np.testing.assert_allclose(grey[0] * 255, np.asarray(pillow(image).convert("L")), atol=0.6)


# By a drawn amount ------------------------------------------------------------------------------


def test_jitter_is_torchvisions_one_after_another_by_the_drawn_amounts() -> None:
    images = photographs(6)
    ranges = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6, "hue": 0.2}
    results = color.random_jitter(images, generator(7), **ranges)
    source = generator(7)
    draws = torch.stack([torch.rand(6, generator=source) * 2 - 1 for _ in ranges], dim=1).tolist()
    for image, result, amounts in zip(images, results, draws, strict=True):
        expected = image
        for (name, largest), amount in zip(ranges.items(), amounts, strict=True):
            neutral = 0 if name == "hue" else 1
            expected = getattr(TF, f"adjust_{name}")(expected, neutral + largest * amount)
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_brightness_spans_the_stated_range_evenly() -> None:
    images = torch.full((2000, 1, 2, 2), 0.5)
    factors = color.random_jitter(images, generator(), brightness=0.4)[:, 0, 0, 0] / 0.5
    assert stats.kstest(factors.numpy(), "uniform", (0.6, 0.8)).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_the_colour_goes_at_the_stated_rate_and_all_channels_stay(probability: float) -> None:
    images = photographs(2000, 3, 4, 5)
    out = color.random_grayscale(images, probability, generator())
    kept = (out == images).flatten(1).all(1)
    expected = TF.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(out[~kept], expected[~kept], atol=1e-5, rtol=0)
    deviation = math.sqrt(probability * (1 - probability) / 2000)
    assert 1 - kept.float().mean().item() == pytest.approx(probability, abs=4 * deviation + 1e-9)


def test_the_blurs_sigma_spans_the_stated_range_evenly() -> None:
    images = torch.zeros(1000, 1, 1, 41)
    images[..., 20] = 1  # a line of light: what is left of its height tells how wide it became
    peaks = color.random_blur(images, 2.0, generator())[:, 0, 0, 20].numpy()
    offsets = np.arange(-6, 7)
    sigmas = np.linspace(0.01, 2, 400)
    heights = 1 / np.exp(-0.5 * (offsets[:, None] / sigmas) ** 2).sum(0)
    found = np.interp(peaks, heights[::-1], sigmas[::-1])
    # Below 0.3 pixels nothing is spread that could be measured.
    assert stats.kstest(found[found > 0.3], "uniform", (0.3, 1.7)).pvalue > 1e-3
    assert (found <= 0.3).mean() == pytest.approx(0.15, abs=0.05)


def test_the_noise_is_gaussian_of_an_evenly_drawn_width() -> None:
    images = torch.full((400, 1, 40, 40), 0.5)
    noise = color.random_noise(images, 0.1, generator()) - 0.5
    widths = noise.std((1, 2, 3))
    assert stats.kstest(widths.numpy(), "uniform", (0, 0.1)).pvalue > 1e-3
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    strongest = noise[widths.argmax()].flatten().numpy()
    assert stats.kstest(strongest / strongest.std(), "norm").pvalue > 1e-3


CHANGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "jitter": lambda images, source: color.random_jitter(images, source, 1.0, 1.0, 1.0, 0.5),
    "grayscale": lambda images, source: color.random_grayscale(images, 0.5, source),
    "blur": lambda images, source: color.random_blur(images, 3.0, source),
    "noise": lambda images, source: color.random_noise(images, 0.5, source),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_results_are_images_in_the_unit_range_and_the_input_stays(
    change: Callable[[Tensor, torch.Generator], Tensor], channels: int
) -> None:
    images = photographs(100, channels)
    before = images.clone()
    out = change(images, generator())
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    assert torch.equal(images, before)


def test_grey_images_have_no_colour_to_change() -> None:
    images = photographs(20, 1)
    assert torch.equal(color.random_jitter(images, generator(), saturation=1.0, hue=0.5), images)
    assert torch.equal(color.random_grayscale(images, 1.0, generator()), images)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_large_batches_done_in_pieces_are_small_ones(
    change: Callable[[Tensor, torch.Generator], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photographs(10)
    whole = change(images, generator())
    monkeypatch.setattr("darkroom.datamodules.batch_ops.PIECE", 3 * images[0].numel())
    torch.testing.assert_close(change(images, generator()), whole, atol=1e-6, rtol=0)
