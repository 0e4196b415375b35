"""MNIST and Fashion-MNIST: idx files from a folder, or torchvision's download of them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..base import ImageDataModule
from ..images.store import ImageStore, without_pixels

_PREFIX = {"train": "train", "test": "t10k"}


class MNIST(ImageDataModule):
    """Handwritten digits, 60,000 for training and 10,000 for testing (LeCun et al. 1998).

    Args:
        root: Folder with the four idx files, gzipped or not, or the folder to download them into.
        download: Fetch the files through torchvision when they are not there.
    """

    class_names: tuple[str, ...] = tuple(str(digit) for digit in range(10))
    source_shape = (1, 28, 28)
    num_source_images = 60_000
    torchvision_name = "MNIST"
    system_folder = Path("/usr/share/datasets/mnist")

    def __init__(self, root: str = "data", download: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)
        self.download = download

    def prepare_data(self) -> None:
        """Downloads what is missing.

        Raises:
            FileNotFoundError: The files are not there and cannot be fetched.
        """
        if self._folder() is not None:
            return
        name = self.torchvision_name
        expected = (
            f"{name} is not in {self.root.resolve()}: expected the four idx files "
            f"(train-images-idx3-ubyte, ... gzipped or not) there, in {name}/raw below it, "
            f"or in {self.system_folder}"
        )
        if not self.download:
            raise FileNotFoundError(
                f"{expected}. Set data.root to the folder that has them, or data.download=true"
            )
        import torchvision  # costs seconds, and only those who download need it

        try:
            getattr(torchvision.datasets, name)(str(self.root), train=True, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{expected}; and downloading them failed ({error}). "
                "Set data.root to a folder that has them, or try again with a connection"
            ) from error

    def load(self) -> dict[str, ImageStore]:
        folder = self._folder()
        if folder is None:
            raise FileNotFoundError(f"no {self.torchvision_name} in {self.root}; call prepare_data first")
        return {split: self._read_split(folder, split) for split in _PREFIX}

    def listed(self) -> dict[str, ImageStore]:
        return {"train": without_pixels([f"train/{index:05d}" for index in range(self.num_source_images)])}

    def _read_split(self, folder: Path, split: str) -> ImageStore:
        image_path, label_path = _split_paths(folder, split)
        assert image_path is not None  # _folder has looked
        assert label_path is not None
        images, labels = read_idx(image_path), read_idx(label_path)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"{image_path} holds {images.shape} and {label_path} {labels.shape}: "
                "expected (N, H, W) images and as many labels"
            )
        if images.shape[1:] != self.source_shape[1:]:
            raise ValueError(f"{image_path} holds images of {images.shape[1:]}: expected 28x28")
        if len(labels) and labels.max() >= len(self.class_names):
            raise ValueError(
                f"{label_path} has label {labels.max()}: expected 0 to {len(self.class_names) - 1}"
            )
        return ImageStore(
            images=torch.from_numpy(images).unsqueeze(1),  # (N, 1, 28, 28)
            targets=torch.from_numpy(labels.astype(np.int64)),
            ids=[f"{split}/{index:05d}" for index in range(len(labels))],
        )

    def _folder(self) -> Path | None:
        """The first folder that holds all four files."""
        name = self.torchvision_name
        below_root = [self.root, self.root / name / "raw", self.root / self.system_folder.name]
        for folder in [*below_root, self.system_folder]:
            if all(None not in _split_paths(folder, split) for split in _PREFIX):
                return folder
        return None


class FashionMNIST(MNIST):
    """Clothes in the format of MNIST, 60,000 and 10,000 images (Xiao et al. 2017).

    Args:
        root: Folder with the four idx files, gzipped or not, or the folder to download them into.
        download: Fetch the files through torchvision when they are not there.
    """

    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    torchvision_name = "FashionMNIST"
    system_folder = Path("/usr/share/datasets/fashion-mnist")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an idx file of unsigned bytes (format: LeCun's MNIST page).

    Raises:
        ValueError: The file is not an idx file of bytes, or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}); fetch it again") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes: it starts with {data[:4].hex()}")
    header_size = 4 + 4 * data[3]
    if len(data) < header_size:
        raise ValueError(f"{path} is cut short: {len(data)} bytes do not hold its header of {header_size}")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4).astype(int)
    if len(data) - header_size != shape.prod():
        raise ValueError(
            f"{path} is damaged: its header promises {shape.prod()} bytes, {len(data) - header_size} came"
        )
    # A copy, because torch wants memory it may write to.
    return np.frombuffer(data, np.uint8, offset=header_size).reshape(shape).copy()


def _split_paths(folder: Path, split: str) -> tuple[Path | None, Path | None]:
    return _find(folder, f"{_PREFIX[split]}-images", "idx3"), _find(
        folder, f"{_PREFIX[split]}-labels", "idx1"
    )


def _find(folder: Path, stem: str, kind: str) -> Path | None:
    # Some mirrors write a dot where the original has a hyphen.
    names = [f"{stem}{sign}{kind}-ubyte{suffix}" for sign in "-." for suffix in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)
