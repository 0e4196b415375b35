"""Folders of small images, each with a colour of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes a small picture of noise around a colour."""

    def write(path: Path, colour: Sequence[int] = (200, 30, 90), size: tuple[int, int] = (24, 18)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(path.as_posix().encode()[-7:], "big")
        noise = np.random.default_rng(seed).integers(-20, 20, (size[1], size[0], 3))
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def write_folder(write_image, tmp_path) -> Callable[..., Path]:
    """Writes root/part/class/number.png, so many of each class; parts may be left out."""

    def write(counts: dict[str, int], parts: Sequence[str] = ("",), name: str = "images") -> Path:
        root = tmp_path / name
        for part in parts:
            for label, (class_name, count) in enumerate(counts.items()):
                for number in range(count):
                    place = root / part / class_name / f"{number:03d}.png"
                    write_image(place, colour=(60 * label + 20, 40, 200 - 60 * label))
        return root

    return write
