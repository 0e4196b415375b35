"""From an encoded image to upright pixels, whole, or a clear word why not."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

Bytes = NDArray[np.uint8]
Channels = Literal[1, 3]

# What Pillow decodes of what users have; others are no images by their names.
IMAGE_SUFFIXES = (
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
)  # fmt: skip
MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB: what Pillow takes for a decompression bomb
JPEG_START = b"\xff\xd8\xff"
ORIENTATION = 0x0112  # of EXIF


class BadImageError(ValueError):
    """What keeps a file from being read as a whole image, in one clause."""


def decode(data: bytes | Image.Image, channels: Channels, at_least: int | None = None) -> Bytes:
    """Pixels (H, W, channels), upright as EXIF says, in RGB or grey.

    Transparent parts show white, as on a page. Of several frames the first is taken; 16 bits a channel
    become 8.

    Args:
        data: The file's content, or what Pillow made of it.
        channels: 3 for RGB, 1 for grey (ITU-R BT.601).
        at_least: A JPEG may come at a half, a quarter or an eighth of its size (which its format gives
            at less cost) as long as its shorter side keeps so many pixels.

    Raises:
        BadImageError: It is no image, or not all of one.
    """
    if isinstance(data, Image.Image):
        return _from_pillow(data, channels)
    if not data:
        raise BadImageError("empty file (0 bytes)")
    if data.startswith(JPEG_START):
        pixels = _decode_jpeg(data, channels, at_least)
        if pixels is not None:
            return pixels
    try:
        picture = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadImageError(
            "more than twice the pixels that an image may have (a decompression bomb?)"
        ) from error
    except Exception as error:  # each format's parser raises its own on what it can't read
        raise BadImageError(f"no image that can be read: starts with {data[:8]!r}") from error
    return _from_pillow(picture, channels)


def original_size(data: bytes | Image.Image) -> tuple[int, int]:
    """Height and width as the header has them, upright.

    Raises:
        BadImageError: There is no header of an image.
    """
    try:
        picture = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
        turned = picture.getexif().get(ORIENTATION, 1) >= 5
    except Exception as error:
        raise BadImageError("no image that can be read") from error
    width, height = picture.size
    return (width, height) if turned else (height, width)


def _decode_jpeg(data: bytes, channels: Channels, at_least: int | None) -> Bytes | None:
    """By libjpeg-turbo; None of what Pillow has to read: CMYK, and what libjpeg complains of."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(height, width)
        if colorspace in ("CMYK", "YCCK"):
            return None
        reduced: dict[str, Any] = {}
        if at_least is not None:
            reduced = {"min_height": at_least, "min_width": at_least, "min_factor": 2}
        pixels: Bytes = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", **reduced)
    except BadImageError:
        raise
    except ValueError:
        return None
    if b"Exif\0" in data[:4096]:
        return _upright(pixels, Image.open(io.BytesIO(data)).getexif().get(ORIENTATION, 1))
    return pixels


def _upright(pixels: Bytes, orientation: int) -> Bytes:
    """Turned and mirrored as the EXIF tag 274 asks for, (H, W, C)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _from_pillow(picture: Image.Image, channels: Channels) -> Bytes:
    _check_size(picture.height, picture.width)
    try:
        picture.seek(0)
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    except Exception as error:  # as above
        raise BadImageError(f"damaged or cut short: {' '.join(str(error).split())}") from error
    if picture.mode in ("F",):
        raise BadImageError("floating-point pixels, whose black and white nobody knows")
    if picture.mode.startswith("I"):  # 16 bits of grey
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImageError(f"pixels from {values.min()} to {values.max()}: expected 8 or 16 bits")
        picture = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(pixels.shape[0], pixels.shape[1], channels)


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width}x{height} pixels, more than {MAX_PIXELS:,} (a decompression bomb?)")
