"""Base class of sources that read image files."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..base import ImageDataModule
from ..images.cache import BadImage, open_images
from ..images.file_images import FileImages
from ..images.readers import FileOriginals, Originals
from ..images.resizing import Decoding, Interpolation, Sizing
from ..images.store import ImageStore, without_pixels
from ..messages import counts_of, some
from .file_names import ClassOrder, class_name, refuse_undecodable

MAX_LISTED = 20  # bad files in one message
GIB = 2**30


@dataclass(frozen=True)
class Listing:
    """The samples of a source as its names and tables have them, before a file is opened.

    Attributes:
        ids: N names, each unique.
        targets: Class indices, int64 (N,), or float32 (N, K) of 0 and 1.
        parts: To which official part each belongs: "train", "val" or "test".
        class_names: The classes, or labels, in the order of their indices.
        paths: Where the files are; None where they are no files of their own.
        groups: N names of what must not be torn apart, or None.
        notes: What a user should know, in sentences.
    """

    ids: Sequence[str]
    targets: NDArray[Any]
    parts: Sequence[str]
    class_names: Sequence[str]
    paths: Sequence[Path] | None = None
    groups: Sequence[str] | None = None
    notes: Sequence[str] = ()


class ImageFiles(ImageDataModule):
    """Images in files of any size and format, as RGB or grey.

    A source implements `list_samples`. Files are decoded once, by whichever process comes first, into a
    cache on disk that all runs and trials share; a file that is no whole image is found there, before
    training starts.

    Args:
        image_size: Side in pixels of what the network sees; of a pretrained backbone of timm's the default
            is what it was pretrained with.
        interpolation: How resizing fills in between pixels; of a pretrained backbone of timm's the default is
            what it was evaluated with, mostly bicubic.
        resize: "squash" makes every image square; "crop" brings its shorter side to image_size /
            crop_fraction and takes the centre, or what `augmentation.resized_crop` draws. The default of a
            pretrained backbone of timm's is its own.
        crop_fraction: Share of the shorter side that the centre crop takes (timm's crop_pct); of a pretrained
            backbone of timm's the default is what it was evaluated with.
        decoding: "exact" decodes and resizes each image as timm's evaluation does, to the last bit. "fast"
            decodes JPEGs of at least twice the size at a fraction of it, and resizes by torch's kernels:
            the first epoch of photographs of 3000x2000 then takes a quarter of the time, later ones the same,
            and published weights give logits that differ by up to 1.
        grayscale: Read images as one channel of grey instead of RGB.
        classes: The class names to expect, in order; without them those that are found, sorted. With
            them `darkroom show` needs no files.
        class_order: How class names that are found are sorted. "natural": by value where all are whole
            numbers, else as text; the composed and decomposed Unicode forms of a name are one class.
            "text": always as text, by the names as they are stored, as torchvision's ImageFolder sorts
            (0, 1, 10, 2). Neither changes an order that the source itself gives.
        on_bad_image: What a file that can't be read does: "error" lists all such files and stops before
            training; "skip" leaves them out, and records which, but never all of a part.
        cache: Folder of decoded images; null takes darkroom in the user's cache folder.
        cache_gib: Space that one data set may take there; a larger one is read from its files each epoch.
    """

    def __init__(
        self,
        image_size: int = 224,
        interpolation: Interpolation = "bilinear",
        resize: Literal["squash", "crop"] = "crop",
        crop_fraction: float = 0.875,
        decoding: Decoding = "exact",
        grayscale: bool = False,
        classes: list[str] | None = None,
        class_order: ClassOrder = "natural",
        on_bad_image: Literal["error", "skip"] = "error",
        cache: str | None = None,
        cache_gib: float = 50.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, interpolation=interpolation, **kwargs)
        if not 0 < crop_fraction <= 1:
            raise ValueError(
                f"data.crop_fraction must lie in (0, 1], got {crop_fraction}; 0.875 is customary"
            )
        if cache_gib < 0:
            raise ValueError(f"data.cache_gib must be at least 0, got {cache_gib}")
        spelled = [class_name(name, class_order) for name in classes or []]
        twice = [name for name, count in Counter(spelled).items() if count > 1]
        if twice:
            raise ValueError(f"data.classes names {some(twice)} more than once; expected each class once")
        self.sizing = Sizing(
            size=image_size,
            resize=resize,
            crop_fraction=crop_fraction,
            interpolation=interpolation,
            channels=1 if grayscale else 3,
            decoding=decoding,
        )
        self.class_order: ClassOrder = class_order
        self.classes = tuple(spelled) if classes is not None else None
        self.on_bad_image = on_bad_image
        self.cache = Path(cache).expanduser() if cache is not None else default_cache()
        self.cache_gib = cache_gib
        self.source_shape = (self.sizing.channels, image_size, image_size)
        self.skipped: list[BadImage] = []

    @abstractmethod
    def list_samples(self) -> Listing:
        """Which samples there are, opening no image.

        Raises:
            FileNotFoundError: Nothing is where the source should be.
            ValueError: Names or tables are not what the source expects.
        """

    def originals(self, listing: Listing) -> Originals:
        """Where the encoded images of a listing are read from."""
        assert listing.paths is not None
        return FileOriginals(listing.paths, listing.ids)

    @cached_property
    def listing(self) -> Listing:
        """`list_samples`, once, in the order of `classes` where they are given.

        Raises:
            ValueError: Names are not UTF-8, nothing is in train, or classes are not those of `classes`;
                see also `list_samples`.
        """
        found = self.list_samples()
        refuse_undecodable(found.ids)
        if len(found.ids) and "train" not in found.parts:
            parts = counts_of(Counter(found.parts))
            raise ValueError(
                f"no image is for training: expected some in train, found only {parts}"
                + "".join(f"; {note}" for note in found.notes)
            )
        return found if self.classes is None else in_order(found, self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # known only once files are listed
        """The classes that `classes` names, or those that were found."""
        return self.classes if self.classes is not None else tuple(self.listing.class_names)

    @property
    def sorts_classes(self) -> bool:
        """Whether `class_order` decides the order of the classes."""
        return False

    def prepare_data(self) -> None:
        """Lists the files.

        Raises:
            FileNotFoundError: There are none.
            ValueError: They are not what the source expects.
        """
        if not len(self.listing.ids):
            raise FileNotFoundError(f"{type(self).__name__} found no images")
        self.division.check_targets(self.listing.targets)

    def listed(self) -> dict[str, ImageStore]:
        everything = without_pixels(self.listing.ids, torch.from_numpy(self.listing.targets))
        return self._parts(replace(everything, groups=self.listing.groups), self.listing.parts)

    def load(self) -> dict[str, ImageStore]:
        listing = self.listing
        self.notes += listing.notes
        images, bad = open_images(
            self.originals(listing),
            self.sizing,
            folder=self.cache,
            budget_bytes=int(self.cache_gib * GIB),
            threads=len(os.sched_getaffinity(0)),
        )
        if bad and self.on_bad_image == "error":
            raise ValueError(refusal(bad, len(listing.ids)))
        bad_ids = {each.id for each in bad}
        good = torch.tensor([sample_id not in bad_ids for sample_id in listing.ids])
        parts = [part for part, kept in zip(listing.parts, good.tolist(), strict=True) if kept]
        gone = [part for part in dict.fromkeys(listing.parts) if part not in parts]
        if gone:  # another would be drawn in its place, or none: that is more than to skip some files
            raise ValueError(
                refusal_of_part(gone[0], bad, dict(zip(listing.ids, listing.parts, strict=True)))
            )
        if bad:
            self.skipped = list(bad)
            self.notes.append(f"{len(bad)} of {len(listing.ids)} files are no whole images and are left out")
        odd = [(name, note) for name, note in zip(listing.ids, images.notes(), strict=True) if note]
        if odd:
            self.notes.append(f"{len(odd)} files are read by their content: {odd[0][0]} {odd[0][1]}")
        targets = torch.from_numpy(listing.targets)
        everything = ImageStore(images, targets, listing.ids, listing.groups)
        return self._parts(everything.subset(good), parts)

    def remedies_for_waiting(self) -> list[str]:
        images = self.splits["train"].images
        assert isinstance(images, FileImages)
        cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
        remedies = []
        if images.is_streamed:
            remedies.append(
                f"Each image is decoded anew in each epoch: more room for the cache in {self.cache} "
                "(data.cache_gib, or data.cache on a larger disk) would keep them decoded."
            )
            if self.sizing.decoding == "exact":
                remedies.append("data.decoding=fast decodes them faster, and less exactly.")
        elif self.augmentation.resized_crop is not None or self.sizing.resize == "crop":
            remedies.append("Each image is cropped on the CPU: a smaller data.image_size takes less of it.")
        else:
            remedies.append("Images are read from data.cache: it may lie on a faster disk.")
        # Of the threads that read decoded images one is left to the network.
        if threads < cores and (images.is_streamed or cores > 2):
            remedies.append(f"{threads} of {cores} cores are in use: OMP_NUM_THREADS={cores} takes all.")
        return remedies

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "skipped": {each.id: each.reason for each in self.skipped}}

    @staticmethod
    def _parts(everything: ImageStore, parts: Sequence[str]) -> dict[str, ImageStore]:
        named = np.asarray(parts)
        order = [name for name in ("train", "val", "test") if (named == name).any()]
        return {name: everything.subset(torch.from_numpy(named == name)) for name in order}


def in_order(listing: Listing, classes: Sequence[str]) -> Listing:
    """The listing with its classes in the given order.

    Raises:
        ValueError: Others were found, or not all.
    """
    found = list(listing.class_names)
    strange, missing = sorted(set(found) - set(classes)), sorted(set(classes) - set(found))
    if strange or missing:
        said = []
        if strange:
            said.append(f"{some(strange)} not among data.classes")
        if missing:
            said.append(f"no {some(missing)}")
        raise ValueError(f"data.classes expects {some(classes)}; found {some(found)} ({'; '.join(said)})")
    order = np.array([found.index(name) for name in classes])
    several = listing.targets.ndim == 2
    targets = listing.targets[:, order] if several else np.argsort(order)[listing.targets]
    return replace(listing, targets=targets, class_names=tuple(classes))


def refusal(bad: Sequence[BadImage], total: int) -> str:
    """What there is to say of files that are no whole images: all of them, at once."""
    return (
        f"{len(bad)} of {total} files can't be read as images; repair or remove them, or leave them out "
        f"with data.on_bad_image=skip:\n{_lines(bad)}"
    )


def refusal_of_part(part: str, bad: Sequence[BadImage], part_of: Mapping[str, str]) -> str:
    """What there is to say where a part of the source has no image that is whole."""
    lost = [each for each in bad if part_of[each.id] == part]
    return (
        f"data.on_bad_image=skip would leave nothing of the source's own {part} images: none of "
        f"{len(lost)} can be read; repair them, or remove them from the source:\n{_lines(lost)}"
    )


def _lines(bad: Sequence[BadImage]) -> str:
    shown = bad[:MAX_LISTED]
    width = max(len(each.id) for each in shown)
    lines = [f"  {each.id:<{width}}  {each.reason}" for each in shown]
    if len(bad) > MAX_LISTED:
        lines.append(f"  and {len(bad) - MAX_LISTED} more")
    return "\n".join(lines)


def default_cache() -> Path:
    """Where decoded images are kept where no folder is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom"
