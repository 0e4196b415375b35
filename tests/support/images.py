"""Images with a known answer, for tests of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from darkroom.datamodules.images.resizing import Sizing, centre_box


def centre(fitted: NDArray[np.uint8], sizing: Sizing) -> NDArray[np.uint8]:
    """What evaluation sees of a stored image."""
    top, left, height, width = centre_box(fitted.shape[0], fitted.shape[1], sizing)
    return fitted[top : top + height, left : left + width]
