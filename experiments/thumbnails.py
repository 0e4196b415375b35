"""Images as they stand in a page: small, and within the page itself."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_SIDE = 128  # pixels
LOSSLESS_SIDE = 64  # up to which PNG is no larger than a photograph's JPEG


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """An image (C, H, W) as the source of an HTML image: of one channel grey, of others the first three."""
    shown = pixels[0] if len(pixels) < 3 else np.moveaxis(pixels[:3], 0, 2)
    image = Image.fromarray(np.ascontiguousarray(shown))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    lossless = max(image.size) <= LOSSLESS_SIDE
    buffer = io.BytesIO()
    image.save(buffer, *(["PNG"] if lossless else ["JPEG"]), optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{'png' if lossless else 'jpeg'};base64,{text}"
