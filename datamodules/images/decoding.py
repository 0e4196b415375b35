"""Every image or a clear word: encoded bytes to upright uint8 pixels."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

Channels = Literal[1, 3]
MAX_PIXELS = 178_956_970  # Pillow's own limit; what claims to be larger is refused before it is decoded
# Identified by content. EPS and its like, which run other programs, stay out.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_ORIENTATION_TAG = 0x0112
_START_OF_SCAN = 0xDA
_WHITE_IS_ZERO = 0  # of the TIFF tag PhotometricInterpretation
# libjpeg only warns of these, and fills what is missing with grey or leaves it displaced.
_DAMAGED_JPEG = re.compile("Premature end|Corrupt JPEG data|Inconsistent progression", re.IGNORECASE)
_PPM = re.compile(rb"P[1-6]\s")
# Pillow warns from half of its limit on; what is too large for us is refused in words of ours.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadImageError(ValueError):
    """What cannot be decoded whole; the message is the reason in one clause, without the path."""


def decode(data: bytes | Image.Image, channels: Channels, at_least: int | None = None) -> NDArray[np.uint8]:
    """Pixels (H, W, channels) as they are meant to be seen: upright per EXIF, RGB or grey.

    Transparency is composited on white, the page that such images are drawn for: under it, the stored
    colours are whatever the editor left there. Of several frames or pages the first counts.

    Args:
        data: An encoded image of one of `FORMATS`, or one that Pillow holds.
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma).
        at_least: Pixels that the shorter side must keep. A JPEG at least twice as large may then be
            decoded at a fraction of its size, which costs a fraction of the time.

    Raises:
        BadImageError: Empty, truncated, damaged, no image at all, or larger than `MAX_PIXELS`.
    """
    return decode_with_size(data, channels, at_least)[0]


def decode_with_size(
    data: bytes | Image.Image, channels: Channels, at_least: int | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """As `decode`, and the height and width of the whole upright image."""
    if isinstance(data, Image.Image):
        pixels = _from_pillow(data, channels)
        return pixels, _size(pixels)
    if not data:
        raise BadImageError("holds no bytes")
    if data.startswith(b"\xff\xd8"):
        return _decode_jpeg(data, channels, at_least)
    if data.startswith(b"\x89PNG"):
        _check_png(data)
    image = _open(data)
    if data.startswith(b"\x89PNG"):
        _scale_transparent_colour(image, depth=data[24], colour_type=data[25])
    pixels = _from_pillow(image, channels)
    return pixels, _size(pixels)


def format_of(data: bytes) -> str | None:
    """The format by its first bytes, in Pillow's names, or None.

    >>> format_of(b"GIF89a...")
    'GIF'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if _PPM.match(data):
        return "PPM"
    signatures = {
        b"\xff\xd8": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"GIF8": "GIF",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
    }
    return next((name for start, name in signatures.items() if data.startswith(start)), None)


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


# JPEG ---------------------------------------------------------------------------------------------


def _decode_jpeg(
    data: bytes, channels: Channels, at_least: int | None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(height, width)
        if colorspace in ("CMYK", "YCCK"):
            # Whether the inks are inverted is Adobe's marker to say, which Pillow reads.
            simplejpeg.decode_jpeg(data, "CMYK")  # Pillow overlooks damage
            pixels = _from_pillow(_open(data), channels)
            return pixels, _size(pixels)
        smallest = at_least if at_least is not None and min(height, width) >= 2 * at_least else 0
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB" if channels == 3 else "GRAY",
            min_height=smallest,
            min_width=smallest,
            min_factor=2 if smallest else 1,
        )
    except BadImageError:
        raise
    except ValueError as error:
        if _DAMAGED_JPEG.search(str(error)):
            raise BadImageError(f"is a truncated or damaged JPEG ({error})") from error
        pixels = _from_pillow(_open(data), channels)  # what libjpeg-turbo does not know, or Pillow's refusal
        return pixels, _size(pixels)
    orientation = _orientation(data)
    turned = orientation >= 5
    return _upright(pixels, orientation), (width, height) if turned else (height, width)


def _orientation(data: bytes) -> int:
    """How the image has to be turned, as EXIF numbers it; 1 is upright."""
    # Most files carry none, and looking for it costs far less than opening them a second time.
    header = _length_of_header(data)
    if data.find(b"Exif\0\0", 0, header) < 0 and data.find(b"tiff:Orientation", 0, header) < 0:
        return 1
    return _exif_orientation(_open(data))


def _length_of_header(data: bytes) -> int:
    """Bytes of a JPEG before its first scan, by segments that say how long they are and may hold anything."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == _START_OF_SCAN:
            break
        # Any number of 0xff may stand before a marker.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


def _exif_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, OSError, KeyError, TypeError, struct.error):
        return 1  # a broken EXIF block says nothing about the pixels
    return orientation if orientation in range(1, 9) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


# Everything else ----------------------------------------------------------------------------------


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadImageError(f"claims to hold more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        if format_of(data) is None:
            raise BadImageError("is no image: its content is none of " + ", ".join(FORMATS)) from None
        raise BadImageError(f"starts as {format_of(data)}, but its header is damaged") from None
    except Exception as error:  # Pillow's readers let any exception of their parsing through
        raise BadImageError(f"cannot be opened ({error})") from error
    _check_size(image.height, image.width)
    return image


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImageError(f"claims to hold {height * width:,} pixels, more than {MAX_PIXELS:,}")


def _check_png(data: bytes) -> None:
    """Pillow stops reading at the last row, so that a wrong checksum there or a missing end passes."""
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 8 + length
        if end + 4 > len(data):
            break
        # Of ancillary chunks (lower case), such as text, no pixel depends on.
        if kind[:1].isupper() and zlib.crc32(data[place + 4 : end]) != int.from_bytes(
            data[end : end + 4], "big"
        ):
            raise BadImageError("is a damaged PNG (a checksum does not match)")
        if kind == b"IEND":
            return
        place = end + 4
    raise BadImageError("is a truncated PNG")


def _scale_transparent_colour(image: Image.Image, depth: int, colour_type: int) -> None:
    """Brings a PNG's transparent colour to 8 bits, as Pillow brings the pixels but not it.

    Of 16-bit RGB Pillow keeps the high bytes, so that colours that agree in these are transparent with it.
    """
    key = image.info.get("transparency")
    if colour_type == 0 and depth in (2, 4) and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2**depth - 1)
    if colour_type == 2 and depth == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _from_pillow(image: Image.Image, channels: Channels) -> NDArray[np.uint8]:
    mode = "RGB" if channels == 3 else "L"
    try:
        image.load()
        orientation = _exif_orientation(image)
        if image.mode.startswith("I;16"):
            return _upright(_from_16_bit(_grey_16_bit(image), channels), orientation)
        if image.format == "PPM" and image.mode == "I":  # whose maxval Pillow has brought to 65535
            return _from_16_bit(np.asarray(image).astype(np.uint16), channels)
        if image.mode in ("I", "F"):
            raise BadImageError("holds 32-bit numbers, whose range for black and white is not known")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        if image.mode != mode:
            image = image.convert(mode)
    except BadImageError:
        raise
    except Exception as error:  # as above
        raise BadImageError(f"is truncated or damaged ({error})") from error
    return _upright(np.array(image).reshape(image.height, image.width, channels), orientation)


def _grey_16_bit(image: Image.Image) -> NDArray[np.uint16]:
    """Pixels (H, W) in [0, 65535], black to white, on a white page where the file has a transparent grey."""
    pixels = np.asarray(image).astype(np.uint16)
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(BITSPERSAMPLE, (16,))[0]
        if bits == 12:  # which Pillow does not scale
            pixels = (pixels.astype(np.uint32) * 65535 // 4095).astype(np.uint16)
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:  # nor invert, as it does 8 bits
            pixels = 65535 - pixels
    key = image.info.get("transparency")
    if isinstance(key, int):
        pixels = np.where(pixels == key, np.uint16(65535), pixels)
    return pixels


def _from_16_bit(pixels: NDArray[np.uint16], channels: Channels) -> NDArray[np.uint8]:
    """Grey (H, W) in [0, 65535] to the nearest of 256; Pillow would keep the low values alone."""
    rounded = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(rounded[:, :, None], channels, axis=2)
