"""Every format is read as Pillow reads it, upright; whatever is not a whole image is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from darkroom.datamodules.images import decoding
from darkroom.datamodules.images.decoding import BadImageError, decode, decode_with_size


def photograph(height: int = 60, width: int = 90) -> Image.Image:
    """Smooth, coloured, and different in every corner."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    channels = [255 * x, 255 * y, 127 + 120 * np.sin(9 * x * y)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


def as_pillow_reads(data: bytes, mode: str = "RGB") -> NDArray[np.int64]:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    pixels = np.asarray((on_white(image) if image.has_transparency_data else image).convert(mode))
    return pixels.reshape(image.height, image.width, -1).astype(np.int64)


def with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photograph(), "JPEG", exif=exif)


def translucent() -> Image.Image:
    image = photograph().convert("RGBA")
    image.putalpha(photograph().getchannel("R"))
    return image


def interlaced_png(pixels: NDArray[np.uint8]) -> bytes:
    """Pillow writes none: the seven passes of Adam7, each row without a filter."""
    height, width, _ = pixels.shape
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx]]
    return png_of(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1), b"".join(rows))


def png_of(header: bytes, rows: bytes) -> bytes:
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def palette_with_transparency() -> bytes:
    return encoded(photograph().quantize(32), "PNG", transparency=3)


def truncation_of(data: bytes, kept: float) -> bytes:
    return data[: int(len(data) * kept)]


FORMATS = {
    "baseline JPEG": lambda: encoded(photograph(), "JPEG", quality=90),
    "progressive JPEG": lambda: encoded(photograph(), "JPEG", progressive=True),
    "grey JPEG": lambda: encoded(photograph().convert("L"), "JPEG"),
    "CMYK JPEG (Adobe, inverted)": lambda: encoded(photograph().convert("CMYK"), "JPEG"),
    "JPEG without subsampling": lambda: encoded(photograph(), "JPEG", subsampling=0),
    **{f"JPEG of orientation {n}": (lambda n=n: with_orientation(n)) for n in range(1, 9)},
    "PNG": lambda: encoded(photograph(), "PNG"),
    "palette PNG": lambda: encoded(photograph().quantize(32), "PNG"),
    "palette PNG with transparency": palette_with_transparency,
    "PNG with alpha": lambda: encoded(translucent(), "PNG"),
    "grey PNG with alpha": lambda: encoded(translucent().convert("LA"), "PNG"),
    "RGB PNG with a transparent colour": lambda: encoded(photograph(), "PNG", transparency=(0, 0, 127)),
    "interlaced PNG": lambda: interlaced_png(np.asarray(photograph())),
    "1-bit PNG": lambda: encoded(photograph().convert("1"), "PNG"),
    "GIF": lambda: encoded(photograph(), "GIF"),
    "animated GIF": lambda: encoded(
        photograph(), "GIF", save_all=True, append_images=[Image.new("RGB", (90, 60), "red")]
    ),
    "BMP": lambda: encoded(photograph(), "BMP"),
    "TIFF": lambda: encoded(photograph(), "TIFF"),
    "LZW TIFF": lambda: encoded(photograph(), "TIFF", compression="tiff_lzw"),
    "CMYK TIFF": lambda: encoded(photograph().convert("CMYK"), "TIFF"),
    "PPM": lambda: encoded(photograph(), "PPM"),
    "grey PPM": lambda: encoded(photograph().convert("L"), "PPM"),
    "lossy WebP": lambda: encoded(photograph(), "WEBP"),
    "WebP with alpha": lambda: encoded(translucent(), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read_as_pillow_reads_it(name: str) -> None:
    data = FORMATS[name]()
    rgb, grey = decode(data, 3), decode(data, 1)
    assert rgb.dtype == grey.dtype == np.uint8
    expected_rgb, expected_grey = as_pillow_reads(data, "RGB"), as_pillow_reads(data, "L")
    assert rgb.shape == expected_rgb.shape
    assert grey.shape == expected_grey.shape
    # Compositing rounds; and a JPEG's luma is stored, from which Pillow goes to RGB and back.
    assert np.abs(rgb - expected_rgb).max() <= 1
    assert np.abs(grey - expected_grey).max() <= 4
    assert np.abs(grey - expected_grey).mean() <= 0.5


def test_an_image_that_pillow_holds_is_read_like_its_file() -> None:
    np.testing.assert_array_equal(decode(photograph(), 3), np.asarray(photograph()))
    np.testing.assert_array_equal(
        decode(Image.open(io.BytesIO(with_orientation(6))), 3), decode(with_orientation(6), 3)
    )


def test_orientation_6_stands_on_its_right_side() -> None:
    """Independent of Pillow: its first row is the photograph's first column from the bottom up."""
    pixels, size = decode_with_size(with_orientation(6), 3)
    assert size == pixels.shape[:2] == (90, 60)
    upright = np.rot90(np.asarray(photograph()), -1).astype(int)
    assert np.abs(pixels - upright).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_range(kind: str) -> None:
    values = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    data = encoded(Image.fromarray(values), kind)
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(data, 1)[:, :, 0], expected)
    np.testing.assert_array_equal(decode(data, 3), np.repeat(expected[:, :, None], 3, axis=2))


def tiff_of(rows: bytes, width: int, height: int, bits: int, photometric: int) -> bytes:
    """Grey, in one strip, as the TIFF 6.0 specification has it (Pillow writes no zero that is white)."""
    rows += b"\0" * (len(rows) % 2)
    short, long = 3, 4
    tags = [(256, short, width), (257, short, height), (258, short, bits), (259, short, 1)]
    tags += [(262, short, photometric), (273, long, 8), (277, short, 1), (278, short, height)]
    tags += [(279, long, len(rows))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    start = struct.pack("<I", 8 + len(rows))
    return b"II*\0" + start + rows + struct.pack("<H", len(tags)) + directory + bytes(4)


GREYS = np.array([[0, 1000], [40000, 65535]], dtype="<u2")  # 0, 4, 156 and 255 of 255


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(tiff_of(GREYS.tobytes(), 2, 2, 16, 1), [0, 4, 156, 255], id="TIFF, black is zero"),
        pytest.param(tiff_of(GREYS.tobytes(), 2, 2, 16, 0), [255, 251, 99, 0], id="TIFF, white is zero"),
        pytest.param(tiff_of(b"\0\x0f\xff\x80\0\0", 4, 1, 12, 1), [0, 255, 128, 0], id="12-bit TIFF"),
        pytest.param(b"P5 2 2 65535\n" + GREYS.byteswap().tobytes(), [0, 4, 156, 255], id="16-bit PGM"),
        pytest.param(
            b"P5 2 2 1023\n" + struct.pack(">4H", 0, 511, 341, 1023), [0, 127, 85, 255], id="10-bit PGM"
        ),
        pytest.param(b"P2 2 2 1023\n0 511 341 1023\n", [0, 127, 85, 255], id="10-bit PGM in digits"),
        pytest.param(b"P5 2 2 100\n" + bytes([0, 20, 40, 100]), [0, 51, 102, 255], id="PGM up to 100"),
    ],
)
def test_grey_of_any_depth_goes_from_black_to_white(data: bytes, expected: list[int]) -> None:
    assert decode(data, 1).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("depth", "colour_type", "transparent", "row", "expected"),
    [
        (16, 0, [1000], struct.pack(">4H", 0, 1000, 1001, 40000), [0, 255, 4, 156]),
        (4, 0, [5], b"\x05\xaf", [0, 255, 170, 255]),
        (2, 0, [1], b"\x1b", [0, 255, 170, 255]),
        (8, 0, [5], bytes([0, 5, 6, 255]), [0, 255, 6, 255]),
        (16, 2, [1000, 1000, 1000], struct.pack(">12H", *[1000] * 3, *[0] * 3, *[1028] * 6), [255, 0, 4, 4]),
    ],
)
def test_a_transparent_colour_is_white_at_any_depth(depth, colour_type, transparent, row, expected) -> None:
    header = struct.pack(">IIBBBBB", 4, 1, depth, colour_type, 0, 0, 0)
    body = b"tRNS" + b"".join(struct.pack(">H", value) for value in transparent)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = png_of(header, b"\0" + row)
    first_pixels = data.index(b"IDAT") - 4
    decoded = decode(data[:first_pixels] + chunk + data[first_pixels:], 1)
    assert decoded.ravel().tolist() == expected


def test_16_bit_colours_keep_their_range() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 9, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = png_of(struct.pack(">IIBBBBB", 9, 8, 16, 2, 0, 0, 0), rows)
    assert np.abs(decode(data, 3) - values / 257).max() <= 1


def test_a_ycck_jpeg_has_the_colours_of_its_cmyk_pixels() -> None:
    inks = 255 - np.asarray(photograph().convert("CMYK"))  # inverted, as Adobe writes them
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(inks), quality=95, colorspace="CMYK")
    assert simplejpeg.decode_jpeg_header(data)[2] == "YCCK"
    assert np.abs(decode(data, 3).astype(int) - np.asarray(photograph())).mean() < 4


def test_transparent_is_white() -> None:
    invisible = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    np.testing.assert_array_equal(decode(encoded(invisible, "PNG"), 3), 255)


@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_decoding_keeps_the_shorter_side_and_the_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(1200, 1601), "JPEG", quality=95, exif=exif)
    pixels, size = decode_with_size(data, 3, at_least=200)
    assert size == ((1200, 1601) if orientation == 1 else (1601, 1200))
    assert 200 <= min(pixels.shape[:2]) < 400
    whole = Image.fromarray(decode(data, 3)).resize(pixels.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(pixels - np.asarray(whole).astype(int)).mean() < 2


def test_small_images_are_decoded_whole() -> None:
    assert decode(encoded(photograph(), "JPEG"), 3, at_least=50).shape == (60, 90, 3)


def test_a_jpeg_is_turned_whatever_its_earlier_segments_hold() -> None:
    data = with_orientation(6)
    thumbnail = b"Photoshop 3.0\0\xff\xda\xff\xff\xd9"
    segment = b"\xff\xff\xed" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert np.array_equal(decode(data[:2] + segment + data[2:], 3), decode(data, 3))


# Bad ones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_refused(name: str, kept: float) -> None:
    if name == "animated GIF" and kept > 0.9:
        return  # its first frame, all that counts, is whole
    with pytest.raises(BadImageError):
        decode(truncation_of(FORMATS[name](), kept), 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_without_its_last_bytes_is_refused(kind: str) -> None:
    with pytest.raises(BadImageError, match="truncated"):
        decode(encoded(photograph(), kind)[:-2], 3)


@pytest.mark.parametrize("name", ["baseline JPEG", "CMYK JPEG (Adobe, inverted)"])
def test_a_jpeg_whose_middle_is_gone_is_refused_though_pillow_reads_it(name: str) -> None:
    data = bytearray(FORMATS[name]())
    middle = data.index(b"\xff\xda") + 200
    del data[middle : middle + 300]
    as_pillow_reads(bytes(data))
    with pytest.raises(BadImageError, match="damaged"):
        decode(bytes(data), 3)


def test_a_png_with_a_changed_byte_is_refused() -> None:
    data = bytearray(encoded(photograph(), "PNG"))
    data[-30] ^= 0x55
    with pytest.raises(BadImageError, match="checksum"):
        decode(bytes(data), 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes"),
        (b"label,file\ncat,1.jpg\n", "no image"),
        (b"<!DOCTYPE html><html></html>", "no image"),
        (b"\xff\xd8", "cannot be opened|damaged|no image"),
        (b"\xff\xd8\xff\xe0" + bytes(200), "cannot be opened|damaged|no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode(data, 3)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    with pytest.raises(BadImageError, match="more than 178,956,970"):
        decode(png_of(header, bytes(9)), 3)
    jpeg = bytearray(encoded(photograph(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(BadImageError, match="4,225,000,000 pixels"):
        decode(bytes(jpeg), 3)


def test_numbers_without_a_known_range_are_refused() -> None:
    with pytest.raises(BadImageError, match="32-bit"):
        decode(encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"), 3)


def test_a_png_named_jpg_is_read_by_content(tmp_path: Path) -> None:
    (tmp_path / "misnamed.jpg").write_bytes(encoded(photograph(), "PNG"))
    assert decoding.format_of((tmp_path / "misnamed.jpg").read_bytes()) == "PNG"
    np.testing.assert_array_equal(
        decode((tmp_path / "misnamed.jpg").read_bytes(), 3), np.asarray(photograph())
    )


@pytest.mark.skipif("DARKROOM_DATA" not in os.environ, reason="needs DARKROOM_DATA")
def test_real_photographs_are_what_pillow_reads() -> None:
    paths = sorted(Path(os.environ["DARKROOM_DATA"], "hymenoptera").rglob("*.jpg"))[::10]
    for path in paths:
        assert np.abs(decode(path.read_bytes(), 3) - as_pillow_reads(path.read_bytes())).max() <= 1
