"""Darkroom: image classification for researchers whose numbers have to be right."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .datamodules import ImageDataModule as ImageDataModule
    from .lightning_modules import ImageClassifier as ImageClassifier

_MODULES = {"ImageClassifier": "lightning_modules", "ImageDataModule": "datamodules"}

__all__ = ["ImageClassifier", "ImageDataModule"]

# A checkout without symbolic links (Windows) has the three packages at its root alone.
if not (Path(__file__).parent / "experiments").is_dir():
    __path__.append(str(Path(__file__).resolve().parents[2]))


def __getattr__(name: str) -> object:
    """Imports a public class when it is asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
