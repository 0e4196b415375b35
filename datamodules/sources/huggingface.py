"""Any image-classification set of the `datasets` library, by its name on the hub or from local files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.readers import Originals
from ..messages import some
from .class_names import likely_typos
from .file_names import ClassOrder, class_name, sorted_classes
from .folder import PARTS
from .image_files import ImageFiles, Listing


class HuggingFaceDataset(ImageFiles):
    """A set of the Hugging Face hub's, or local Parquet files in its layout; needs the extra `huggingface`.

    Labels are one class, or for multi-label tasks a list of them. Parts named train, validation (or val,
    valid) and test are kept; others are left out, as is a part whose labels the hub hides.

    Args:
        path: Name on the hub, such as uoft-cs/cifar10, or a local folder, or one Parquet file to train on.
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
        self._labels: dict[str, list[Any]] = {}
        self._hidden: list[str] = []  # parts whose labels are

    @property
    def multilabel(self) -> bool:  # type: ignore[override]  # known only once the set is there
        """Whether images have lists of labels."""
        return hasattr(self._feature(), "feature")

    def datasets(self) -> dict[str, Any]:
        """The library's dataset of each part that has labels, with images as encoded bytes.

        Raises:
            FileNotFoundError: The set is not there and can't be fetched.
            ValueError: The library is missing, or the set has not the columns.
        """
        if self._parts_found is None:
            try:
                library = importlib.import_module("datasets")
            except ModuleNotFoundError as error:
                raise ValueError("HuggingFaceDataset needs datasets, which is not installed") from error
            found = self._load(library)
            named = {PARTS.get(str(name).lower()): each for name, each in found.items()}
            parts: dict[str, Any] = {part: named[part] for part in ("train", "val", "test") if part in named}
            if "train" not in parts:
                raise ValueError(f"data.path={self.path} has no part named train; it has {', '.join(found)}")
            column = self._image_column(library, parts["train"])
            as_bytes = library.Image(decode=False)
            self.image_column = column
            labels = {part: list(each[self.label_column]) for part, each in parts.items()}
            self._hidden = self._without_labels(labels, parts["train"].features[self.label_column])
            self._labels = {part: each for part, each in labels.items() if part not in self._hidden}
            self._parts_found = {part: parts[part].cast_column(column, as_bytes) for part in self._labels}
        return self._parts_found

    def _load(self, library: Any) -> Any:
        file = Path(self.path).expanduser()
        is_file = file.suffix.lower() == ".parquet" and file.is_file()
        if is_file and (self.config, self.revision) != (None, None):
            raise ValueError(
                f"data.path={self.path} is one file, which has neither data.config nor data.revision; leave "
                "both null"
            )
        try:
            if is_file:
                return library.load_dataset("parquet", data_files={"train": str(file)})
            return library.load_dataset(self.path, self.config, revision=self.revision)
        except (OSError, ValueError, RuntimeError) as error:
            raise FileNotFoundError(
                f"data.path={self.path} is neither a folder or a Parquet file that `datasets` can read nor "
                f"to be had from the hub ({' '.join(str(error).split())[:300]})"
            ) from error

    def _without_labels(self, labels: Mapping[str, Sequence[Any]], feature: Any) -> list[str]:
        if class_names_of(feature) is None and -1 in labels["train"]:
            return []  # a class of its own
        hidden = [part for part, each in labels.items() if are_hidden(each)]
        if "train" in hidden:
            raise ValueError(f"data.path={self.path} has no labels to train on: all are {labels['train'][0]}")
        return hidden

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
        names = class_names_of(self._feature())
        labels = self._labels
        try:
            check_labels(labels, names)
        except ValueError as error:
            raise ValueError(f"data.path={self.path}: {error}") from error
        targets, class_names = encode(
            [label for each in labels.values() for label in each], names, self.class_order
        )
        several = targets.ndim == 2
        counts = targets.sum(0) if several else np.bincount(targets, minlength=len(class_names))
        left_out = [
            f"Part {part} has no labels, all are hidden: nothing can be judged on it, it is left out"
            for part in self._hidden
        ]
        return Listing(
            ids=[f"{part}/{index:06d}" for part, each in labels.items() for index in range(len(each))],
            targets=targets,
            parts=[part for part, each in labels.items() for _ in each],
            class_names=class_names,
            notes=[*left_out, *likely_typos(class_names, counts)],
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


def class_names_of(feature: Any) -> list[str] | None:
    """What a column's labels are called, one or several an image; None where it has the names themselves."""
    return getattr(getattr(feature, "feature", feature), "names", None)


def are_hidden(labels: Sequence[Any]) -> bool:
    """Whether no image of a part has a label: of test parts the hub mostly has -1 for all.

    >>> are_hidden([-1, -1]), are_hidden([[-1], [-1]]), are_hidden([None]), are_hidden([-1, 0])
    (True, True, True, False)
    """
    return len(labels) > 0 and all(label in (-1, None, [-1]) for label in labels)


def check_labels(labels: Mapping[str, Sequence[Any]], names: Sequence[str] | None) -> None:
    """Refuses labels that no class can be told by.

    Args:
        labels: Of each part, indices into `names`, or names themselves; or lists of such.
        names: Of the classes, where the set tells them.

    Raises:
        ValueError: An image has no label where it should have one, or an index that no class has.
    """
    given = {part: _lists(each) for part, each in labels.items()}
    missing = _rows(given, lambda label: label in (None, ""), told=False)
    if missing:
        raise ValueError(
            f"images have no label: {missing}, rows counted from 0. Label them, or leave them out"
        )
    indices = range(len(names or ()))
    strange = _rows(given, lambda label: label not in indices, told=True) if names is not None else ""
    if strange:
        raise ValueError(
            f"labels must be 0 to {len(indices) - 1}, one for each class: {strange}, rows counted from 0. "
            "Correct them, or leave the images out"
        )


def encode(
    labels: Sequence[Any], names: Sequence[str] | None, order: ClassOrder
) -> tuple[NDArray[Any], list[str]]:
    """Labels, of one or several an image, as indices (N,) or 0 and 1 (N, K), with the classes' names.

    Args:
        labels: Indices into `names`, or names themselves; or lists of such.
        names: Of the classes, where the set tells them.
        order: Of names that are found; numbers that are no text are in their own.

    >>> encode(["b", "a "], None, "natural")
    (array([1, 0]), ['a', 'b'])
    >>> encode([[0], [0, 1]], ["red", "white"], "natural")[0].tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    given = _lists(labels)
    if names is None:
        given = [[class_name(x, order) if isinstance(x, str) else x for x in each] for each in given]
        distinct = {label for each in given for label in each}
        are_text = all(isinstance(label, str) for label in distinct)
        found = sorted_classes(distinct, order) if are_text else sorted(distinct)
        index = {label: place for place, label in enumerate(found)}
        given = [[index[label] for label in each] for each in given]
        names = [str(label) for label in found]
    if not _are_several(labels):
        return np.array([label for (label,) in given], dtype=np.int64), list(names)
    targets = np.zeros((len(given), len(names)), dtype=np.float32)
    for row, each in enumerate(given):
        targets[row, each] = 1
    return targets, list(names)


def _are_several(labels: Sequence[Any]) -> bool:
    return any(isinstance(label, list | tuple) for label in labels)


def _lists(labels: Sequence[Any]) -> list[list[Any]]:
    """Each image's labels, without the blanks around them."""
    several = _are_several(labels)
    given = [list(label or []) if several else [label] for label in labels]
    return [[label.strip() if isinstance(label, str) else label for label in each] for each in given]


def _rows(labels: Mapping[str, Sequence[Sequence[Any]]], wrong: Callable[[Any], bool], *, told: bool) -> str:
    """Counts the images of each part that have a wrong label, and names the first; empty where none has."""
    said = []
    for part, each in labels.items():
        found = {place: label for place, row in enumerate(each) for label in row if wrong(label)}
        if found:
            rows = some([f"row {place}" + f" has {label}" * told for place, label in found.items()])
            said.append(f"{len(found)} of {len(each)} in part {part} ({rows})")
    return "; ".join(said)
