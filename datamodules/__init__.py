"""Data modules: images with their classes, splits and augmentation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if not __name__.startswith("darkroom."):
    raise ImportError("datamodules is part of darkroom: import darkroom.datamodules")

if TYPE_CHECKING:
    from .base import ImageDataModule as ImageDataModule
    from .sources.digits import Digits as Digits
    from .sources.folder import ImageFolder as ImageFolder
    from .sources.huggingface import HuggingFaceDataset as HuggingFaceDataset
    from .sources.mnist import MNIST as MNIST
    from .sources.mnist import FashionMNIST as FashionMNIST
    from .sources.synthetic import Synthetic as Synthetic
    from .sources.table import ImageTable as ImageTable
    from .sources.torchvision.datamodule import TorchvisionDataset as TorchvisionDataset
    from .sources.webdataset.datamodule import ImageShards as ImageShards

_MODULES = {
    "MNIST": "sources.mnist",
    "Digits": "sources.digits",
    "FashionMNIST": "sources.mnist",
    "HuggingFaceDataset": "sources.huggingface",
    "ImageDataModule": "base",
    "ImageFolder": "sources.folder",
    "ImageShards": "sources.webdataset.datamodule",
    "ImageTable": "sources.table",
    "Synthetic": "sources.synthetic",
    "TorchvisionDataset": "sources.torchvision.datamodule",
}

__all__ = [
    "MNIST",
    "Digits",
    "FashionMNIST",
    "HuggingFaceDataset",
    "ImageDataModule",
    "ImageFolder",
    "ImageShards",
    "ImageTable",
    "Synthetic",
    "TorchvisionDataset",
]


def __getattr__(name: str) -> object:
    """Imports a public class when it is asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
