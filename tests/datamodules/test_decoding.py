"""Every format that users have comes in upright and whole, or is refused with a word that says why."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from datamodules.decoding import MAX_PIXELS, BadImageError, decode, decode_with_size

HEIGHT, WIDTH = 48, 64


def picture() -> Image.Image:
    """Smooth colours, none of them symmetric, so that a turn or a swap of channels shows."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    channels = [rows * 255 / HEIGHT, columns * 255 / WIDTH, (rows + columns) * 255 / (HEIGHT + WIDTH) / 2]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def close(ours: np.ndarray, theirs: Image.Image, tolerance: int = 3) -> bool:
    expected = np.asarray(theirs).astype(int)
    return bool(np.abs(ours.squeeze().astype(int) - expected).max() <= tolerance)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        pytest.param(
            "WEBP", {"lossless": True}, marks=pytest.mark.skipif(not features.check("webp"), reason="no WebP")
        ),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_format_comes_in_as_pillow_reads_it(kind: str, options: dict[str, Any], channels: int) -> None:
    data = encoded(picture(), kind, **options)
    theirs = Image.open(io.BytesIO(data)).convert("RGB" if channels == 3 else "L")
    ours = decode(data, channels)
    assert ours.shape == (HEIGHT, WIDTH, channels)
    assert close(ours, theirs)
    assert decode_with_size(data, 3)[1] == (HEIGHT, WIDTH)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_turned_photograph_is_upright(orientation: int, kind: str) -> None:
    upright = picture()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that EXIF's value takes back
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    assert close(decode(data, 3), upright, tolerance=8)
    assert decode_with_size(data, 3)[1] == (HEIGHT, WIDTH)


def test_cmyk_is_read_as_pillow_reads_it() -> None:
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert close(decode(data, 3), Image.open(io.BytesIO(data)).convert("RGB"))


def test_sixteen_bits_of_grey_become_eight_by_their_share_of_the_range() -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).round().astype(np.uint16).reshape(HEIGHT, WIDTH)
    for kind in ("PNG", "TIFF"):
        ours = decode(encoded(Image.fromarray(values), kind), 1)
        np.testing.assert_allclose(ours[..., 0], values / 257, atol=0.51)


def test_transparent_parts_show_white() -> None:
    image = picture().convert("RGBA")
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:10] = 0
    image.putalpha(Image.fromarray(alpha))
    ours = decode(encoded(image, "PNG"), 3)
    assert (ours[:10] == 255).all()
    assert close(ours[10:], picture().crop((0, 10, WIDTH, HEIGHT)), tolerance=0)


def test_a_palette_with_one_transparent_colour_is_read() -> None:
    image = Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8)[:, None], WIDTH, axis=1) % 4, mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    ours = decode(encoded(image, "PNG", transparency=3), 3)
    assert ours[:, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)).convert("1")
    assert set(np.unique(decode(encoded(bits, "PNG"), 1))) == {0, 255}


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert close(decode(data, 3), frames[0], tolerance=2)


def test_a_jpeg_may_come_smaller_but_not_below_what_is_needed() -> None:
    data = encoded(picture().resize((1600, 1200)), "JPEG", quality=95)
    for at_least, height in ((1200, 1200), (700, 1200), (600, 600), (250, 300), (100, 150)):
        assert decode(data, 3, at_least).shape[0] == height
    small = Image.fromarray(decode(data, 3, 150)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    assert close(np.asarray(small), picture(), tolerance=10)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_half_a_file_is_no_image(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadImageError):
        decode(data[: len(data) // 2], 3)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "holds no bytes"),
        (b"<html>not found</html>", "is no image"),
        (b"\xff\xd8\xff\xe0 and then nothing", "damaged|opened|no image"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data: bytes, named: str) -> None:
    with pytest.raises(BadImageError, match=named):
        decode(data, 3)


def test_a_decompression_bomb_is_refused_before_it_unpacks() -> None:
    side = int(MAX_PIXELS**0.5) + 10
    bomb = encoded(Image.new("1", (side, side)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(BadImageError, match="claims to hold"):
        decode(bomb, 3)


def test_a_wrong_suffix_does_not_matter_as_content_decides() -> None:
    assert decode(encoded(picture(), "PNG"), 3).shape == (HEIGHT, WIDTH, 3)  # whatever the file is called


def test_a_damaged_chunk_is_noticed() -> None:
    data = bytearray(encoded(picture(), "PNG", pnginfo=PngImagePlugin.PngInfo()))
    middle = len(data) // 2
    data[middle] ^= 0xFF
    with pytest.raises(BadImageError, match="damaged"):
        decode(bytes(data), 3)
