"""Lightning modules: the image classifier and its parts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if not __name__.startswith("darkroom."):
    raise ImportError("lightning_modules is part of darkroom: import darkroom.lightning_modules")

if TYPE_CHECKING:
    from .classifier import ImageClassifier as ImageClassifier

_MODULES = {
    "ImageClassifier": "classifier",
}

__all__ = [
    "ImageClassifier",
]


def __getattr__(name: str) -> object:
    """Imports a public class when it is asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
