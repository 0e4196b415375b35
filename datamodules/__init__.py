"""Data sources: what is learned from."""

from datamodules.base import ImageDataModule
from datamodules.digits import Digits
from datamodules.mnist import MNIST, FashionMNIST

__all__ = ["MNIST", "Digits", "FashionMNIST", "ImageDataModule"]
