"""Images in folders named after their classes, with or without folders for train, validation and test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..messages import counts_of, some
from .class_names import likely_typos
from .file_names import class_name, is_image, readable, sorted_classes
from .image_files import ImageFiles, Listing

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class ImageFolder(ImageFiles):
    """`root/class/image.jpg`, or the same below `root/train`, `root/val` (or `validation`) and `root/test`.

    Parts that are there are kept as they are; the others are drawn from train. Images beside the folders of
    classes are left out, which a note says, and so are hidden files and folders. Links to folders are
    followed, but each folder is read once for a class.

    Args:
        root: The folder.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()

    @property
    def sorts_classes(self) -> bool:
        return self.classes is None

    def list_samples(self) -> Listing:
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"data.root={self.root} is no folder: expected one with a folder for each class, or with "
                "train, val and test that have them"
            )
        parts = part_folders(self.root)
        found: list[tuple[str, str, str]] = []  # part, class, file below the root
        ignored: Counter[str] = Counter()
        empty: list[str] = []
        again: list[str] = []
        for part, folder in parts:
            for class_folder in sorted(subfolders(folder)):
                below = class_folder.relative_to(self.root)
                images, others, repeated = images_below(class_folder)
                ignored.update(others)
                again += [f"{below}/{name}".rstrip("/") for name in repeated]
                found += [(part, class_folder.name, f"{below}/{name}") for name in images]
                if not images:
                    empty.append(str(below))
        notes = loose_images(self.root, [folder for _, folder in parts])
        if not found:
            raise FileNotFoundError(
                f"no image lies in data.root={self.root.resolve()} in a class's folder: expected "
                f"class/image.jpg there, or train/class/image.jpg{''.join(f'; {note}' for note in notes)}"
            )
        if empty:
            raise ValueError(
                f"{self.root} has folders of classes without an image: {some(empty)}; remove them, or fill "
                "them"
            )
        named = [class_name(name, self.class_order) for _, name, _ in found]
        class_names = sorted_classes(named, self.class_order)
        index = {name: place for place, name in enumerate(class_names)}
        targets = np.array([index[name] for name in named], dtype=np.int64)
        notes += likely_typos(class_names, np.bincount(targets))
        if again:
            notes.append(f"links to folders of the same class, or above it, are not followed: {some(again)}")
        if ignored:
            notes.append(f"files that are no images by their names are left out: {counts_of(ignored)}")
        return Listing(
            ids=[name for _, _, name in found],
            targets=targets,
            parts=[part for part, _, _ in found],
            class_names=class_names,
            paths=[self.root / name for _, _, name in found],
            notes=notes,
        )


def part_folders(root: Path) -> list[tuple[str, Path]]:
    """The folders of train, validation and test; the root itself as train where there are none.

    Raises:
        ValueError: Some of root's folders are such parts, and others are not; or a part stands twice.
    """
    named = {folder: PARTS.get(folder.name.lower()) for folder in sorted(subfolders(root))}
    parts = [(part, folder) for folder, part in named.items() if part is not None]
    if not parts:
        return [("train", root)]
    others = [folder.name for folder, part in named.items() if part is None]
    twice = [part for part, count in Counter(part for part, _ in parts).items() if count > 1]
    if others or twice or "train" not in {part for part, _ in parts}:
        raise ValueError(
            f"{root} has the folders {', '.join(folder.name for folder in named)}: expected one for each "
            "class, or train with val (or validation) and test beside it, each once and nothing else"
        )
    return parts


def images_below(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Images relative to the folder, sorted folder by folder; what other files are; links not followed.

    Hidden folders are not looked into. Links to folders are followed after all folders that are no links, and
    only where they lead to a folder that was not read before and is not above this one: so no image is read
    twice, and no cycle is entered.
    """
    images, others, repeated = [], [], []
    seen = {_identity(above) for above in folder.absolute().parents}
    pending = [str(folder)]
    for start in pending:  # which grows
        for place, folders, names in os.walk(start):  # sorted at the end: a million Paths would take a minute
            inside = place[len(str(folder)) + 1 :]
            if (identity := _identity(Path(place))) in seen:
                repeated.append(inside)
                folders.clear()
                continue
            seen.add(identity)
            folders[:] = [name for name in folders if not name.startswith(".")]  # such as .ipynb_checkpoints
            links = [name for name in folders if Path(place, name).is_symlink()]
            pending += [f"{place}/{name}" for name in sorted(links)]
            for name in names:
                if is_image(name):
                    images.append(f"{inside}/{name}" if inside else name)
                else:
                    others.append(readable(Path(name).suffix.lower() or name))
    return sorted(images, key=lambda name: name.split("/")), others, repeated


def _identity(folder: Path) -> tuple[int, int]:
    """What is the same for each path to a folder."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def loose_images(root: Path, parts: Sequence[Path]) -> list[str]:
    """Sentences about images that lie in the root or a part beside the folders of classes, not in one."""
    notes = []
    for folder in dict.fromkeys([root, *parts]):
        with os.scandir(folder) as entries:
            count = sum(is_image(entry.name) and entry.is_file() for entry in entries)
        place = f"data.root={readable(str(root))}" if folder == root else f"{folder.name}/"
        if count:
            lie, are = ("1 image lies", "is") if count == 1 else (f"{count} images lie", "are")
            notes.append(f"{lie} in {place} itself, in no class's folder, and {are} left out")
    return notes


def subfolders(folder: Path) -> list[Path]:
    """Returns the paths that are not hidden."""
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
