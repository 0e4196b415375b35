"""Data sources: what is learned from."""

from datamodules.base import ImageDataModule
from datamodules.digits import Digits
from datamodules.folder import ImageFolder
from datamodules.huggingface import HuggingFaceDataset
from datamodules.mnist import MNIST, FashionMNIST
from datamodules.shards import ImageShards
from datamodules.synthetic import Synthetic
from datamodules.table import ImageTable
from datamodules.torchvision import TorchvisionDataset

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
