"""Divides images into slices by class, size or column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.inspection.image_statistics import measure
from darkroom.datamodules.sources.table import ImageTable

from ...errors import RequestError, nearest
from ...evaluation.array_types import Floats

BUILT_IN = ("class", "size", "brightness")
MAX_VALUES = 20  # of a column that is taken without being asked for
MAX_NUMBERS = 8  # more of them are divided into quarters
MISSING = "missing"


@dataclass(frozen=True)
class Slice:
    """Some of the images.

    Attributes:
        by: What they have in common is a value of this.
        name: That value.
        members: Which of N images they are, (N,).
        label: Of a slice by class, the index of the class or label.
    """

    by: str
    name: str
    members: NDArray[np.bool_]
    label: int | None = None


def by_class(targets: NDArray[Any], class_names: Sequence[str]) -> list[Slice]:
    """The images of each class (N,), or with each label (N, K); of several labels an image is in several."""
    present = targets > 0.5 if targets.ndim == 2 else targets[:, None] == np.arange(len(class_names))
    return [Slice("class", name, present[:, label], label) for label, name in enumerate(class_names)]


def by_quarters(by: str, numbers: Floats, unit: str = "") -> list[Slice]:
    """Quarters of the images by numbers (N,); of few numbers each by itself. NaN is a slice of its own.

    >>> [(each.name, each.members.sum().item()) for each in by_quarters("age", np.arange(9.0))]
    [('0 to 2', 3), ('3 to 4', 2), ('5 to 6', 2), ('7 to 8', 2)]
    >>> [each.name for each in by_quarters("size", np.array([16.0, 24, 24, 24, 24]), " px")]
    ['16 px', '24 px']
    """
    known = np.isfinite(numbers)
    values = np.unique(numbers[known])
    ends = values[:-1]
    if len(values) > MAX_NUMBERS:  # where most are the largest, an end below it leaves two slices
        ends = np.unique(np.minimum(np.quantile(numbers[known], (0.25, 0.5, 0.75)), values[-2]))
    quarters = np.where(known, np.digitize(numbers, ends, right=True), -1)
    found = []
    for quarter in np.unique(quarters[known]).tolist():
        members = quarters == quarter
        low, high = numbers[members].min(), numbers[members].max()
        name = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        found.append(Slice(by, name + unit, members))
    return found + ([] if known.all() else [Slice(by, MISSING, ~known)])


def by_column(column: pd.Series[Any]) -> list[Slice]:
    """The images with each value of a column of a table, (N,); of many numbers, their quarters.

    >>> [each.name for each in by_column(pd.Series(["b", None, "a"], name="site"))]
    ['a', 'b', 'missing']
    """
    by = str(column.name)
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().equals(column.notna()) and numbers.nunique() > MAX_NUMBERS:
        return by_quarters(by, numbers.to_numpy(np.float64))
    names = column.astype("string").fillna(MISSING).to_numpy(dtype=np.str_)
    return [Slice(by, str(name), names == name) for name in np.unique(names)]


class Columns:
    """What the images of a run can be divided by, found in its data.

    Args:
        data: Loaded.
        split: The images' part.
        ids: Of the N images that the run judged.

    Raises:
        RequestError: The data has none of that part, or lacks images that were judged.
    """

    def __init__(self, data: ImageDataModule, split: str, ids: NDArray[np.str_]) -> None:
        if split not in data.splits:
            raise RequestError(f"the data has no {split} images; it has {' and '.join(data.splits)}")
        self._store = data.splits[split]
        place_of = {name: place for place, name in enumerate(self._store.ids)}
        gone = [name for name in ids.tolist() if name not in place_of]
        if gone:
            raise RequestError(
                f"the data lacks {len(gone)} of {len(ids)} images that the run judged, such as {gone[0]}: it "
                "has changed since. --data.root=... says where that of the run lies; --by class needs none"
            )
        self._places = torch.tensor([place_of[name] for name in ids.tolist()])
        self._table = pd.DataFrame(index=ids)
        if isinstance(data, ImageTable):
            self._table = data.metadata().reindex(ids)
        sizes = self._store.original_sizes
        self._sides = None if sizes is None else np.sqrt(sizes[self._places].double().prod(1).numpy())

    @property
    def names(self) -> list[str]:
        """All that can be asked for; a table's column comes before what has its name here."""
        return list(dict.fromkeys(["class", *self._measured, *map(str, self._table.columns)]))

    @property
    def _measured(self) -> list[str]:
        varied = self._sides is not None and len(np.unique(self._sides)) > 1
        return ["size", "brightness"] if varied else ["brightness"]

    def usual(self) -> tuple[list[str], list[str]]:
        """What images are divided by unless one asks, and what is left out, in sentences."""
        chosen, notes = [name for name in self.names if name not in self._table], []
        if "size" not in self.names:
            notes.append("all images have one size, or none that is known: there are no slices by it")
        for name in self._table.columns:
            slices = by_column(self._table[name])
            if len(slices) > MAX_VALUES:
                notes.append(f"{name} has {len(slices)} values and is left out; --by {name} takes it")
            elif len(slices) > 1:
                chosen.append(str(name))
        return chosen, notes

    def slices(self, name: str) -> list[Slice]:
        """Returns the slices of one column other than class.

        Raises:
            RequestError: There is no such column.
        """
        if name in self._table:
            return by_column(self._table[name])
        if name not in self._measured:
            if name == "size":
                raise RequestError("--by size: all images have one size, or none that is known")
            raise RequestError(f"--by: there is nothing called {name}; {nearest(name, self.names)}")
        if name == "size":
            assert self._sides is not None
            return by_quarters("size", self._sides, " px")
        return by_quarters("brightness", measure(_Chosen(self._store.images, self._places)).brightness)


class _Chosen:
    """Some of a store's images, in the order of their places, read when they are asked for."""

    def __init__(self, images: Any, places: torch.Tensor) -> None:
        self._images = images
        self._places = places
        self.shape = (len(places), *images.shape[1:])

    def __getitem__(self, places: torch.Tensor) -> torch.Tensor:
        chosen: torch.Tensor = self._images[self._places[places]]
        return chosen
