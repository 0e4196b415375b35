"""Reads files, labels and classes from torchvision datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..file_names import IMAGE_SUFFIXES


def paths_of(datasets: Iterable[Any]) -> list[Path] | None:
    """The files of torchvision's datasets in order; None where one does not tell them, or has other kinds."""
    paths: list[Path] = []
    for dataset in datasets:
        files = _files_of(dataset)
        if len(files) != len(dataset) or not all(isinstance(each, str | Path) for each in files):
            return None
        found = [Path(each) for each in files]
        if not all(path.suffix.lower() in IMAGE_SUFFIXES for path in found):
            return None  # Darkroom would not decode them, as torchvision does
        paths += found
    return paths


def _files_of(dataset: Any) -> Sequence[Any]:
    if hasattr(dataset, "_flat_character_images"):  # Omniglot
        folders = [Path(dataset.target_folder) / name for name in dataset._characters]
        return [folders[label] / name for name, label in dataset._flat_character_images]
    if hasattr(dataset, "all_categories"):  # iNaturalist
        folders = [Path(dataset.root) / name for name in dataset.all_categories]
        return [folders[label] / name for label, name in dataset.index]
    if hasattr(dataset, "attr_names"):  # CelebA
        folder = Path(dataset.root) / dataset.base_folder / "img_align_celeba"
        return [folder / name for name in dataset.filename]
    for name in ("samples", "_samples", "imgs", "_image_files", "_images"):
        if hasattr(dataset, name):
            return [each[0] if isinstance(each, tuple) else each for each in getattr(dataset, name)]
    return []


def _raw_labels_of(dataset: Any) -> Any:
    """The labels as torchvision keeps them, without decoding images."""
    for name in ("targets", "labels", "_labels", "y", "attr"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    for name in ("samples", "_samples", "_flat_character_images"):
        if hasattr(dataset, name):
            return [label for _, label in getattr(dataset, name)]
    if hasattr(dataset, "all_categories"):  # iNaturalist
        return [label for label, _ in dataset.index]
    if hasattr(dataset, "h5py"):  # PCAM
        file = dataset._base_folder / dataset._FILES[dataset._split]["targets"][0]
        with dataset.h5py.File(file) as table:
            return table["y"][:, 0, 0, 0]
    raise ValueError(f"torchvision's {type(dataset).__name__} keeps its labels where they are not found")


def labels_of(dataset: Any) -> NDArray[np.int64]:
    """The class indices (N,) of a torchvision dataset, or its labels (N, K) of 0 and 1."""
    labels = np.asarray(_raw_labels_of(dataset), dtype=np.int64)
    # Of QMNIST's eight numbers an image the first is its class.
    return labels[:, 0] if labels.ndim == 2 and not hasattr(dataset, "attr") else labels


def is_hidden(dataset: Any) -> bool:
    """Whether torchvision knows of no label."""
    labels = _raw_labels_of(dataset)
    return isinstance(labels, list) and all(label is None for label in labels)


def label_names_of(dataset: Any) -> list[str]:
    """The labels, of a dataset whose images have any of several."""
    return [name for name in dataset.attr_names if name]  # the line in CelebA's file ends in a blank


def classes_of(dataset: Any, labels: NDArray[np.int64], known: Sequence[str] | None = None) -> dict[str, str]:
    """A dataset's classes in the order of their indices: what tells them apart, and what they are called."""
    for attribute in ("classes", "categories", "all_categories", "_characters"):
        known = known or getattr(dataset, attribute, None)
    if known is None:  # such as counts
        known = list(map(str, range(int(labels.max()) + 1)))
    # ImageNet's are tuples of synonyms.
    names = [name[0] if isinstance(name, tuple) else str(name) for name in known]
    return dict(zip(getattr(dataset, "wnids", names), names, strict=True))


def joined(
    labels: Mapping[str, NDArray[np.int64]], classes: Mapping[str, Mapping[str, str]], *, sort: bool = False
) -> tuple[NDArray[np.int64], list[str]]:
    """One list of classes for all parts: of those that occur, whatever index each part gives them.

    Args:
        labels: Class indices (N,) of each part.
        classes: Of each part what tells its classes apart, and what they are called.
        sort: Take the classes in the order of what tells them apart, not as the parts have them.

    >>> labels = {"train": np.array([3, 4]), "val": np.array([0])}
    >>> counts = {"train": {"0": "0", "1": "1", "2": "2", "3": "3", "4": "4"}, "val": {"4": "4"}}
    >>> joined(labels, counts)
    (array([0, 1, 1]), ['3', '4'])
    >>> joined({"train": np.array([0, 1])}, {"train": {"n02012849": "crane", "n03126707": "crane"}})[1]
    ['crane (n02012849)', 'crane (n03126707)']
    """
    names = {key: name for each in classes.values() for key, name in each.items()}
    keys = sorted(names) if sort else list(names)
    index = {key: place for place, key in enumerate(keys)}
    targets = np.concatenate(
        [np.array([index[key] for key in classes[part]])[each] for part, each in labels.items()]
    )
    occurring, targets = np.unique(targets, return_inverse=True)
    called = [names[keys[place]] for place in occurring]
    repeated = {name for name, count in Counter(called).items() if count > 1}
    told = [f"{names[key]} ({key})" if names[key] in repeated else names[key] for key in keys]
    return targets.astype(np.int64), [told[place] for place in occurring]


def pixels_of(dataset: Any, shape: tuple[int, int, int]) -> Tensor:
    """The images of a dataset that keeps them as one array, uint8 (N, C, H, W)."""
    if hasattr(dataset, "data"):
        pixels = torch.as_tensor(np.asarray(dataset.data))
    else:  # FER2013
        pixels = torch.stack([image for image, _ in dataset._samples])
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.shape[-1] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.shape[1] == 3 and shape[0] == 1:
        weights = torch.tensor([0.299, 0.587, 0.114])  # of ITU-R BT.601, as Pillow converts
        pixels = torch.einsum("nchw,c->nhw", pixels.float(), weights).round().byte().unsqueeze(1)
    assert pixels.shape[1:] == shape, (pixels.shape, shape)
    return pixels.contiguous()
