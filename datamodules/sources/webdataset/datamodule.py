"""Images in WebDataset's tar shards, on a disk or behind URLs, for sets that outgrow one machine's disk."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...images.readers import Originals
from ...loader import BatchLoader
from ...splitting.sampling import mix_shards
from ..class_names import likely_typos
from ..file_names import ClassOrder, class_name
from ..huggingface import encode
from ..image_files import GIB, ImageFiles, Listing
from .shard_files import ShardFiles
from .shard_index import ShardIndex, index_shard, kept_index


class ImageShards(ImageFiles):
    """Uncompressed tar shards in WebDataset's layout; needs the extra `shards`.

    A sample is an image and its label in members of the same name: 0001.jpg and 0001.cls. Headers are read
    once, so that every image can be read by itself: batches, splits and resuming are those of all other
    sources. Each epoch goes through the shards in another order, a few of them open at a time.

    Args:
        root: Folder of the shards; or the beginning of their URLs; or a command that writes one to its
            output, with {} for its name: "pipe:aws s3 cp s3://bucket/birds/{} -".
        train: Names of the training shards below it; {000..123} and, in folders, * stand for several.
        val: Those of validation shards; null draws validation images from train.
        test: Those of test shards.
        label_extension: Ending of the members with labels: a class's name, or its index in `classes`.
        label_delimiter: For multi-label tasks: what stands between an image's labels.
        mixed_shards: From how many shards at a time training images are drawn; from as many as there
            are, they are shuffled without regard to shards.
        copies_gib: Space for local copies of shards behind URLs, in the folder `cache`.
    """

    def __init__(
        self,
        root: str,
        train: str = "*.tar",
        val: str | None = None,
        test: str | None = None,
        label_extension: str = "cls",
        label_delimiter: str | None = None,
        mixed_shards: int = 16,
        copies_gib: float = 50.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mixed_shards < 1:
            raise ValueError(f"data.mixed_shards must be at least 1, got {mixed_shards}; 16 is customary")
        if copies_gib <= 0:
            raise ValueError(f"data.copies_gib must be above 0, got {copies_gib}")
        if label_delimiter == "":
            raise ValueError("data.label_delimiter must be a character, such as | or ;")
        self.patterns = {"train": train, "val": val, "test": test}
        self.label_extension = label_extension.lower().lstrip(".")
        self.label_delimiter = label_delimiter
        self.mixed_shards = mixed_shards
        self.multilabel = label_delimiter is not None
        self.files = ShardFiles(root, self.cache / "shards" / "copies", int(copies_gib * GIB))

    @cached_property
    def part_of(self) -> dict[str, str]:
        """To which part each shard belongs, by the shards' names."""
        try:
            importlib.import_module("webdataset")
        except ModuleNotFoundError as error:
            raise ValueError("ImageShards needs webdataset, which is not installed") from error
        parts: dict[str, str] = {}
        for part, pattern in self.patterns.items():
            for shard in self.files.find(pattern) if pattern is not None else []:
                if parts.setdefault(shard, part) != part:
                    raise ValueError(
                        f"shard {shard} is among data.{parts[shard]}={self.patterns[parts[shard]]} and "
                        f"data.{part}={pattern}: each belongs to one part"
                    )
        return parts

    @cached_property
    def shards(self) -> dict[str, ShardIndex]:
        """What each shard holds."""
        return {shard: self._index(shard) for shard in self.part_of}

    def list_samples(self) -> Listing:
        self._check_room()
        labels = [label for index in self.shards.values() for label in index.labels]
        targets, class_names = encode_texts(labels, self.label_delimiter, self.classes, self.class_order)
        counts = targets.sum(0) if self.multilabel else np.bincount(targets, minlength=len(class_names))
        return Listing(
            ids=[f"{shard}/{name}" for shard, index in self.shards.items() for name in index.names],
            targets=targets,
            parts=[self.part_of[shard] for shard, index in self.shards.items() for _ in index.names],
            class_names=class_names,
            notes=likely_typos(class_names, counts),
        )

    def _index(self, shard: str) -> ShardIndex:
        digest = hashlib.blake2b(digest_size=12)
        digest.update(f"{self.files.stamp(shard)}\n{self.label_extension}".encode())

        def read_headers() -> ShardIndex:
            with self.files.open(shard) as file:
                return index_shard(file, shard, self.label_extension)

        return kept_index(self.cache / "shards" / f"{digest.hexdigest()}.parquet", read_headers)

    def _check_room(self) -> None:
        """Shards that are copied, read and removed in turn would be copied for every batch."""
        largest = max(int((index.offsets + index.sizes).max(initial=0)) for index in self.shards.values())
        needed = min(self.mixed_shards + 1, len(self.shards)) * largest
        if self.files.is_remote and needed > self.files.room_bytes:
            raise ValueError(
                f"data.copies_gib={self.files.room_bytes / GIB:.3g} has no room for the data.mixed_shards="
                f"{self.mixed_shards} that are read together, which take {needed / GIB:.3g} GiB"
            )

    def originals(self, listing: Listing) -> Originals:
        return ShardMembers(self.files, self.shards, listing.ids)

    def train_dataloader(self) -> BatchLoader:
        loader = super().train_dataloader()
        numbers = {
            f"{shard}/{name}": number
            for number, (shard, index) in enumerate(self.shards.items())
            for name in index.names
        }
        shards = torch.tensor([numbers[image_id] for image_id in self.splits["train"].ids])
        loader.arrange = lambda order, generator: mix_shards(order, shards, self.mixed_shards, generator)
        return loader


class ShardMembers:
    """The encoded images of shards, one shard after another."""

    def __init__(self, files: ShardFiles, shards: dict[str, ShardIndex], ids: Sequence[str]) -> None:
        self.ids = ids
        self.origin = files.address("")
        self._files = files
        self._names = list(shards)
        self._shards = np.repeat(np.arange(len(shards)), [len(index.names) for index in shards.values()])
        self._offsets = np.concatenate([index.offsets for index in shards.values()])
        self._sizes = np.concatenate([index.sizes for index in shards.values()])

    def stamps(self) -> Sequence[str]:
        stamps = [self._files.stamp(name) for name in self._names]
        rows = zip(self._shards.tolist(), self._offsets.tolist(), self._sizes.tolist(), strict=True)
        return [f"{stamps[shard]} {offset} {size}" for shard, offset, size in rows]

    def read(self, place: int) -> bytes:
        with self._files.open(self._names[self._shards[place]]) as file:
            file.seek(self._offsets[place])
            return file.read(int(self._sizes[place]))


def encode_texts(
    texts: Sequence[str], delimiter: str | None, classes: Sequence[str] | None, order: ClassOrder
) -> tuple[NDArray[Any], list[str]]:
    """Labels as they stand in shards, as indices (N,) or 0 and 1 (N, K), with the classes' names.

    Indices are in the order of their values, names in the given one.

    >>> encode_texts(["10", "9"], None, None, "natural")
    (array([1, 0]), ['9', '10'])
    >>> encode_texts(["1", "0"], None, ["ant", "bee"], "natural")
    (array([1, 0]), ['ant', 'bee'])
    >>> encode_texts(["rust;scab", "scab"], ";", None, "natural")[0].tolist()
    [[1.0, 1.0], [0.0, 1.0]]

    Raises:
        ValueError: An index is none of `classes`.
    """
    given = [[text] if delimiter is None else text.split(delimiter) for text in texts]
    cleaned = [[class_name(label.strip(), order) for label in labels if label.strip()] for labels in given]
    found = {label for labels in cleaned for label in labels}
    are_names = classes is not None and found <= set(classes)
    if are_names or not all(label.isdecimal() for label in found):
        return encode(cleaned if delimiter is not None else [label for (label,) in cleaned], None, order)
    numbers = [[int(label) for label in labels] for labels in cleaned]
    largest = max((number for labels in numbers for number in labels), default=0)
    if classes is not None and largest >= len(classes):
        raise ValueError(f"data.classes names {len(classes)} classes; found index {largest} among the labels")
    return encode(numbers if delimiter is not None else [number for (number,) in numbers], classes, order)
