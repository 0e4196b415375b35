"""Any of torchvision's classification sets by name, with its official parts and its own download."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.cache import Originals
from datamodules.files import ImageFiles, Listing
from datamodules.store import ImageStore

Parts = dict[str, dict[str, Any]]

TRAIN_FLAG: Parts = {"train": {"train": True}, "test": {"train": False}}
TRAIN_TEST: Parts = {"train": {"split": "train"}, "test": {"split": "test"}}
TRAIN_VAL: Parts = {"train": {"split": "train"}, "val": {"split": "val"}}
TRAINVAL_TEST: Parts = {"train": {"split": "trainval"}, "test": {"split": "test"}}
ALL_THREE: Parts = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
UNDIVIDED: Parts = {"train": {}}
DIGITS = tuple(map(str, range(10)))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Known:
    """What is known of a set without its files.

    Attributes:
        parts: The constructor's arguments of each official part.
        shape: (C, H, W) of sets whose images torchvision keeps as one array; None of those in files.
        classes: Their names, where they are few.
    """

    parts: Parts = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] | None = None


SETS: dict[str, Known] = {
    "CIFAR10": Known(TRAIN_FLAG, (3, 32, 32), CIFAR10),
    "CIFAR100": Known(TRAIN_FLAG, (3, 32, 32)),
    "CLEVRClassification": Known(TRAIN_VAL),
    "Caltech101": Known(UNDIVIDED),
    "Caltech256": Known(UNDIVIDED),
    "Country211": Known({**ALL_THREE, "val": {"split": "valid"}}),
    "DTD": Known(ALL_THREE),
    "EuroSAT": Known(UNDIVIDED),
    "FGVCAircraft": Known(ALL_THREE),
    "Flowers102": Known(ALL_THREE),
    "Food101": Known(TRAIN_TEST),
    "GTSRB": Known(TRAIN_TEST),
    "ImageNet": Known(TRAIN_VAL),
    "Imagenette": Known(TRAIN_VAL),
    "KMNIST": Known(TRAIN_FLAG, (1, 28, 28)),
    "OxfordIIITPet": Known(TRAINVAL_TEST),
    "RenderedSST2": Known(ALL_THREE),
    "STL10": Known(TRAIN_TEST, (3, 96, 96)),
    "SUN397": Known(UNDIVIDED),
    "SVHN": Known(TRAIN_TEST, (3, 32, 32), DIGITS),
    "StanfordCars": Known(TRAIN_TEST),
    "USPS": Known(TRAIN_FLAG, (1, 16, 16), DIGITS),
}


class TorchvisionDataset(ImageFiles):
    """A set of torchvision's, such as CIFAR10, SVHN, STL10, Flowers102, OxfordIIITPet, Food101 or EuroSAT.

    Args:
        name: The name of torchvision's class.
        root: Folder that holds the set as torchvision lays it out, or to download it into.
        download: Fetch the set through torchvision when it is not there.
        image_size: Side in pixels of what the network sees; null keeps that of sets whose images all have
            one size, and takes 224 of others.
    """

    def __init__(
        self,
        name: str,
        root: str = "data",
        download: bool = True,
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        if name not in SETS:
            raise ValueError(f"data.name: no set is named {name!r}; known are {', '.join(SETS)}")
        self.known = SETS[name]
        native = self.known.shape
        super().__init__(image_size=image_size or (native[1] if native else 224), **kwargs)
        if native is not None:  # resized on the device that trains, as all that fits in memory
            self.source_shape = (self.sizing.channels if native[0] == 3 else 1, *native[1:])
        if self.classes is None:
            self.classes = self.known.classes
        self.set_name = name
        self.root = Path(root).expanduser()
        self.download = download
        self._datasets: dict[str, Any] | None = None

    def prepare_data(self) -> None:
        """Downloads what is missing.

        Raises:
            FileNotFoundError: The files are not there and can't be fetched.
        """
        self.datasets()
        super().prepare_data()

    def datasets(self) -> dict[str, Any]:
        """torchvision's dataset of each official part.

        Raises:
            FileNotFoundError: The files are not there and can't be fetched.
        """
        if self._datasets is None:
            import torchvision  # costs seconds, and only this source needs it

            build = getattr(torchvision.datasets, self.set_name)
            self._datasets = {part: self._build(build, given) for part, given in self.known.parts.items()}
        return self._datasets

    def _build(self, build: Any, given: dict[str, Any]) -> Any:
        arguments = {"root": str(self.root), **given}
        try:
            return build(**arguments)
        except (RuntimeError, OSError) as missing:
            expected = f"{self.set_name} is not in {self.root.resolve()} as torchvision lays it out"
            if not self.download:
                raise FileNotFoundError(
                    f"{expected} ({_short(missing)}). Set data.root to where it is, or data.download=true"
                ) from missing
        try:
            return build(**arguments, download=True)
        except (RuntimeError, OSError, TypeError) as error:
            raise FileNotFoundError(
                f"{expected}; and downloading it failed ({_short(error)}). Set data.root to where it is, "
                "or try again with a connection"
            ) from error

    def list_samples(self) -> Listing:
        datasets = self.datasets()
        targets = {part: targets_of(dataset) for part, dataset in datasets.items()}
        first = next(iter(datasets.values()))
        known = self.known.classes or getattr(first, "classes", None) or getattr(first, "categories", None)
        count = max(int(each.max()) for each in targets.values()) + 1
        names = [str(name) for name in known] if known is not None else list(map(str, range(count)))
        return Listing(
            ids=[f"{part}/{index:06d}" for part, each in targets.items() for index in range(len(each))],
            targets=np.concatenate(list(targets.values())),
            parts=[part for part, each in targets.items() for _ in each],
            class_names=names,
            paths=paths_of(datasets.values()),
        )

    def originals(self, listing: Listing) -> Originals:
        if listing.paths is not None:
            return super().originals(listing)
        return DatasetOriginals(list(self.datasets().values()), listing.ids)

    def load(self) -> dict[str, ImageStore]:
        if self.known.shape is None:
            return super().load()
        listing = self.listing
        images = torch.cat([pixels_of(dataset, self.source_shape) for dataset in self.datasets().values()])
        everything = ImageStore(images, torch.from_numpy(listing.targets), listing.ids)
        return self._parts(everything, listing.parts)


class DatasetOriginals:
    """The images of datasets that keep them neither as one array nor as files whose paths they tell."""

    def __init__(self, datasets: Sequence[Any], ids: Sequence[str]) -> None:
        self.ids = ids
        self.origin = f"{type(datasets[0]).__name__} {Path(datasets[0].root).absolute()}"
        self._datasets = datasets
        self._ends = np.cumsum([len(dataset) for dataset in datasets])

    def stamps(self) -> Sequence[str]:
        roots = [Path(dataset.root) for dataset in self._datasets]
        changed = [f"{root.resolve()} {root.stat().st_mtime_ns}" for root in roots]
        return [changed[int(np.searchsorted(self._ends, place, "right"))] for place in range(len(self.ids))]

    def read(self, place: int) -> Any:
        """The image at a place, as Pillow's."""
        part = int(np.searchsorted(self._ends, place, "right"))
        start = 0 if part == 0 else int(self._ends[part - 1])
        return self._datasets[part][place - start][0]


def paths_of(datasets: Iterable[Any]) -> list[Path] | None:
    """The files of torchvision's datasets in order; None where one does not tell them."""
    paths: list[Path] = []
    for dataset in datasets:
        known = [getattr(dataset, name) for name in ("samples", "_samples", "_image_files", "_images")
                 if hasattr(dataset, name)]  # fmt: skip
        files = [each[0] if isinstance(each, tuple) else each for each in known[0]] if known else []
        if len(files) != len(dataset) or not all(isinstance(each, str | Path) for each in files):
            return None
        paths += [Path(each) for each in files]
    return paths


def targets_of(dataset: Any) -> NDArray[np.int64]:
    """The class indices (N,) of a torchvision dataset, without decoding its images."""
    for name in ("targets", "labels", "_labels", "y"):
        if hasattr(dataset, name):
            return np.asarray(getattr(dataset, name), dtype=np.int64)
    for name in ("samples", "_samples"):
        if hasattr(dataset, name):
            return np.array([label for _, label in getattr(dataset, name)], dtype=np.int64)
    raise ValueError(f"torchvision's {type(dataset).__name__} keeps its labels where they are not found")


def pixels_of(dataset: Any, shape: tuple[int, int, int]) -> Tensor:
    """The images of a dataset that keeps them as one array, uint8 (N, *shape)."""
    pixels = torch.as_tensor(np.asarray(dataset.data))
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.shape[-1] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.shape[1] == 3 and shape[0] == 1:
        weights = torch.tensor([0.299, 0.587, 0.114])  # of ITU-R BT.601, as Pillow converts
        pixels = torch.einsum("nchw,c->nhw", pixels.float(), weights).round().byte().unsqueeze(1)
    assert pixels.shape[1:] == shape, (pixels.shape, shape)
    return pixels.contiguous()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
