"""Any image-classification set of the `datasets` library, by its name on the hub or from a local folder."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import Originals
from datamodules.files import ImageFiles, Listing
from datamodules.folder import PARTS


class HuggingFaceDataset(ImageFiles):
    """A set of the Hugging Face hub's, or local Parquet files in its layout; needs the extra `huggingface`.

    Labels are one class, or for multi-label tasks a list of them. Parts named train, validation (or val,
    valid) and test are kept; others are left out.

    Args:
        path: Name on the hub, such as uoft-cs/cifar10, or a local folder.
        config: Which of the set's configurations; null takes its default.
        revision: Commit or tag on the hub, to read the same images again.
        image_column: Column with the images; null takes the only one that has images.
        label_column: Column with the labels.
    """

    def __init__(
        self,
        path: str,
        config: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str = "label",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.config = config
        self.revision = revision
        self.image_column = image_column
        self.label_column = label_column
        self._parts_found: dict[str, Any] | None = None

    @property
    def multilabel(self) -> bool:  # type: ignore[override]  # known only once the set is there
        """Whether images have lists of labels."""
        return hasattr(self._feature(), "feature")

    def datasets(self) -> dict[str, Any]:
        """The library's dataset of each part, with images as encoded bytes.

        Raises:
            FileNotFoundError: The set is not there and can't be fetched.
            ValueError: The library is missing, or the set has not the columns.
        """
        if self._parts_found is None:
            if importlib.util.find_spec("datasets") is None:
                raise ValueError("HuggingFaceDataset needs a library: pip install 'darkroom[huggingface]'")
            library = importlib.import_module("datasets")
            try:
                found = library.load_dataset(self.path, self.config, revision=self.revision)
            except (OSError, ValueError, RuntimeError) as error:
                raise FileNotFoundError(
                    f"data.path={self.path} is neither a folder that `datasets` can read nor to be had from "
                    f"the hub ({' '.join(str(error).split())[:300]})"
                ) from error
            named = {PARTS.get(str(name).lower()): each for name, each in found.items()}
            parts = {part: named[part] for part in ("train", "val", "test") if part in named}
            if "train" not in parts:
                raise ValueError(f"data.path={self.path} has no part named train; it has {', '.join(found)}")
            column = self._image_column(library, parts["train"])
            as_bytes = library.Image(decode=False)
            self._parts_found = {part: each.cast_column(column, as_bytes) for part, each in parts.items()}
            self.image_column = column
        return self._parts_found

    def _image_column(self, library: Any, dataset: Any) -> str:
        images = [name for name, kind in dataset.features.items() if isinstance(kind, library.Image)]
        if self.label_column not in dataset.features:
            raise ValueError(
                f"data.path={self.path} has no column {self.label_column!r} (data.label_column); it has "
                f"{', '.join(dataset.features)}"
            )
        if self.image_column is None and len(images) == 1:
            return str(images[0])
        if self.image_column not in images:
            raise ValueError(
                f"data.image_column must be one that has images ({', '.join(images) or 'there is none'}), "
                f"got {self.image_column}"
            )
        return str(self.image_column)

    def _feature(self) -> Any:
        return self.datasets()["train"].features[self.label_column]

    def list_samples(self) -> Listing:
        labels = {part: list(each[self.label_column]) for part, each in self.datasets().items()}
        everything = [label for each in labels.values() for label in each]
        feature = self._feature()
        names = getattr(getattr(feature, "feature", feature), "names", None)
        targets, class_names = encode(everything, names)
        return Listing(
            ids=[f"{part}/{index:06d}" for part, each in labels.items() for index in range(len(each))],
            targets=targets,
            parts=[part for part, each in labels.items() for _ in each],
            class_names=class_names,
        )

    def originals(self, listing: Listing) -> Originals:
        return EncodedRows(f"{self.path} {self.config}", self.datasets(), str(self.image_column), listing.ids)


class EncodedRows:
    """The encoded images of `datasets`' tables, one part after another."""

    def __init__(self, origin: str, parts: Mapping[str, Any], column: str, ids: Sequence[str]) -> None:
        self.ids = ids
        self.origin = origin
        self._parts = list(parts.values())
        self._column = column
        self._ends = np.cumsum([len(each) for each in self._parts])

    def stamps(self) -> list[str]:
        """The library's own fingerprints, which change with the content."""
        return [str(self._parts[self._part(place)]._fingerprint) for place in range(len(self.ids))]

    def read(self, place: int) -> bytes:
        part = self._part(place)
        start = 0 if part == 0 else int(self._ends[part - 1])
        encoded = self._parts[part][place - start][self._column]
        if encoded is None:
            return b""
        if encoded["bytes"] is not None:
            return bytes(encoded["bytes"])
        return Path(encoded["path"]).read_bytes()

    def _part(self, place: int) -> int:
        return int(np.searchsorted(self._ends, place, "right"))


def encode(labels: Sequence[Any], names: Sequence[str] | None) -> tuple[NDArray[Any], list[str]]:
    """Labels, of one or several an image, as indices (N,) or 0 and 1 (N, K), with the classes' names.

    Args:
        labels: Indices into `names`, or names themselves; or lists of such.
        names: Of the classes, where the set tells them.

    >>> encode(["b", "a"], None)[0].tolist()
    [1, 0]
    >>> encode([[0], [0, 1]], ["red", "white"])[0].tolist()
    [[1.0, 0.0], [1.0, 1.0]]

    Raises:
        ValueError: An image has no label, where it should have one.
    """
    several = any(isinstance(label, list | tuple) for label in labels)
    given = [list(label or []) if several else [label] for label in labels]
    if not several and any(label is None for label in labels):
        raise ValueError(f"image {labels.index(None)} has no label")
    if names is None:
        found = sorted({label for each in given for label in each})
        index = {label: place for place, label in enumerate(found)}
        given = [[index[label] for label in each] for each in given]
        names = [str(label) for label in found]
    if not several:
        return np.array([each[0] for each in given], dtype=np.int64), list(names)
    targets = np.zeros((len(given), len(names)), dtype=np.float32)
    for row, each in enumerate(given):
        targets[row, each] = 1
    return targets, list(names)
