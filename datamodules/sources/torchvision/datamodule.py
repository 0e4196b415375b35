"""Any of torchvision's classification sets by name, with its official parts and its own download."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...images.readers import Originals, file_stamp
from ...images.store import ImageStore
from ..image_files import ImageFiles, Listing
from .adapters import classes_of, is_hidden, joined, label_names_of, labels_of, paths_of, pixels_of
from .catalog import known_set, parts_of


class TorchvisionDataset(ImageFiles):
    """A set of torchvision's, such as CIFAR10, SVHN, STL10, Flowers102, OxfordIIITPet, Food101 or EuroSAT.

    Args:
        name: The name of torchvision's class.
        root: Folder that holds the set as torchvision lays it out, or to download it into.
        download: Fetch the set through torchvision when it is not there.
        image_size: Side in pixels of what the network sees; null keeps that of sets that torchvision has
            as one array of pixels, and takes 224 of others.
        variant: Which one, of sets that come in several: EMNIST as balanced, byclass, bymerge, letters,
            digits or mnist; INaturalist by its year; Imagenette by its size; FGVCAircraft by family or
            manufacturer; DTD by its partition; Places365 and Omniglot by their halves. Null takes the first.
    """

    def __init__(
        self,
        name: str,
        root: str = "data",
        download: bool = True,
        image_size: int | None = None,
        variant: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        self.known = known_set(name)
        self.official_parts = parts_of(name, None if variant is None else str(variant))
        self.multilabel = self.known.multilabel
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
        self._hidden: list[str] = []  # parts whose labels are not published

    def prepare_data(self) -> None:
        """Downloads what is missing.

        Raises:
            FileNotFoundError: The files are not there and can't be fetched.
            ValueError: The set needs a library that is missing.
        """
        self.datasets()
        super().prepare_data()

    def datasets(self) -> dict[str, Any]:
        """torchvision's dataset of each official part that has labels.

        Raises:
            FileNotFoundError: The files are not there and can't be fetched.
            ValueError: The set needs a library that is missing.
        """
        if self._datasets is None:
            needs = self.known.needs
            if needs is not None:
                try:
                    importlib.import_module(needs)
                except ModuleNotFoundError as error:
                    said = f"data.name={self.set_name} needs {needs}, which is not installed"
                    raise ValueError(said) from error
            import torchvision  # costs seconds, and only this source needs it

            build = getattr(torchvision.datasets, self.set_name)
            found = {part: self._build(build, given) for part, given in self.official_parts.items()}
            self._hidden = [part for part, dataset in found.items() if part != "train" and is_hidden(dataset)]
            self._datasets = {part: each for part, each in found.items() if part not in self._hidden}
        return self._datasets

    def _build(self, build: Any, given: dict[str, Any]) -> Any:
        arguments = {"root": str(self.root), **given}
        try:
            dataset = build(**arguments)
            # Places365 looks for its lists alone.
            if not Path(getattr(dataset, "images_dir", self.root)).is_dir():
                raise FileNotFoundError(f"there is no folder {dataset.images_dir}")
            return dataset
        except (RuntimeError, OSError, ValueError) as missing:
            reason = _short(missing)
            expected = f"{self.set_name} is not in {self.root.resolve()} as torchvision lays it out"
            if not self.download:
                raise FileNotFoundError(
                    f"{expected} ({reason}). Set data.root to where it is, or data.download=true"
                ) from missing
        try:
            return build(**{**arguments, "download": True})
        except TypeError as error:  # it has no such argument
            raise FileNotFoundError(
                f"{expected} ({reason}), and torchvision has no download of it. Set data.root to where it is"
            ) from error
        except (RuntimeError, OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{expected}; and downloading it failed ({_short(error)}). Set data.root to where it is, "
                "or try again with a connection"
            ) from error

    def list_samples(self) -> Listing:
        datasets = self.datasets()
        labels = {part: labels_of(dataset) for part, dataset in datasets.items()}
        targets: NDArray[Any]
        parts = [part for part, each in labels.items() for _ in each]
        paths = paths_of(datasets.values())
        if self.multilabel:
            targets = np.concatenate(list(labels.values())).astype(np.float32)
            class_names = label_names_of(next(iter(datasets.values())))
        else:
            classes = {
                part: classes_of(dataset, labels[part], self.known.classes)
                for part, dataset in datasets.items()
            }
            targets, class_names = joined(labels, classes, sort=self.known.sort)
        if self.known.sort:
            assert paths is not None
            places = [(list(labels).index(part), path) for part, path in zip(parts, paths, strict=True)]
            order = sorted(range(len(places)), key=places.__getitem__)
            targets, paths = targets[order], [places[place][1] for place in order]
        notes = [
            f"the labels of {self.set_name}'s {part} part are not published: it is left out"
            for part in self._hidden
        ]
        return Listing(
            ids=[f"{part}/{index:06d}" for part, each in labels.items() for index in range(len(each))],
            targets=targets,
            parts=parts,
            class_names=class_names,
            paths=paths,
            notes=notes if self.known.note is None else [*notes, self.known.note],
        )

    def originals(self, listing: Listing) -> Originals:
        if listing.paths is not None:
            return super().originals(listing)
        return DatasetOriginals(list(self.datasets().values()), listing.ids)

    def load(self) -> dict[str, ImageStore]:
        if self.known.shape is None:
            return super().load()
        listing = self.listing
        self.notes += listing.notes
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
        changed = [_stamp_of(dataset) for dataset in self._datasets]
        return [changed[int(np.searchsorted(self._ends, place, "right"))] for place in range(len(self.ids))]

    def read(self, place: int) -> Any:
        """The image at a place, as Pillow's."""
        part = int(np.searchsorted(self._ends, place, "right"))
        start = 0 if part == 0 else int(self._ends[part - 1])
        return self._datasets[part][place - start][0]


def _stamp_of(dataset: Any) -> str:
    """Returns a stamp of all files in the dataset's own folder, else of those directly in its root."""
    own = getattr(dataset, "_base_folder", None)
    files = Path(dataset.root).iterdir() if own is None else Path(own).rglob("*")
    stamps = sorted(file_stamp(file) for file in files if file.is_file())
    return hashlib.blake2b("\n".join(stamps).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
