"""What a look at all images of an experiment finds: counts, sizes, duplicates, leaks, outliers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules import ImageDataModule
from datamodules.duplicates import Pairs, find_duplicates
from datamodules.measures import Measures, measure
from datamodules.outliers import MIN_SCORE, robust_scores
from datamodules.store import ImageStore

SPLITS = ("train", "val", "test")
MAX_LISTED = 1000  # pairs and outliers by name; all are counted

Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Sample:
    """One image: where it stands, what it is called and taken for."""

    split: str
    place: int
    id: str
    label: str


@dataclass(frozen=True)
class Duplicate:
    """Two images of one picture, and the grey levels they differ by."""

    first: Sample
    second: Sample
    kind: Literal["equal", "near", "mirrored"]
    difference: float


@dataclass(frozen=True)
class Duplicates:
    """How many pairs there are, and those most alike."""

    total: int
    listed: tuple[Duplicate, ...]


@dataclass(frozen=True)
class Outlier:
    """An image unlike the rest: the value of a measure, and how many standard deviations it is off."""

    sample: Sample
    measure: str
    value: float
    score: float


@dataclass(frozen=True)
class Straddler:
    """A group with images in several splits, and how many in each."""

    group: str
    images: dict[str, int]


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label a network doubts, with its probabilities of both labels."""

    sample: Sample
    suggested: str
    confidence: float
    given_confidence: float

    @property
    def summary(self) -> str:
        return f"rather {self.suggested}? {self.confidence:.2f} against {self.given_confidence:.2f}"


@dataclass(frozen=True)
class Findings:
    """All of it, as terminal, page and JSON show it.

    Attributes:
        name: The experiment's.
        class_counts: Images of each class, or with each label, by split.
        values: Of each image, by split, under "brightness" and "contrast" and, where images come from files
            of several sizes, "size" (of a square of its area, in pixels) and "aspect ratio".
        channel_means: Of each channel, of pixels in [0, 1], by split.
        leaks: Duplicates across splits.
        repeats: Duplicates within one.
        conflicts: Those of either whose labels differ.
        straddlers: Groups across splits.
        skipped: Images left out, each with the reason.
        label_issues: None where no run was asked.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    class_counts: dict[str, list[int]]
    num_images: dict[str, int]
    values: dict[str, Values]
    channel_means: dict[str, list[float]]
    channel_stds: dict[str, list[float]]
    leaks: Duplicates
    repeats: Duplicates
    conflicts: Duplicates
    straddlers: tuple[Straddler, ...]
    outliers: tuple[Outlier, ...]
    num_outliers: int
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    label_issues: tuple[LabelIssue, ...] | None = None

    @property
    def leak_summary(self) -> str | None:
        """What stands on both sides of a split, in short; None where nothing does."""
        pairs, groups = self.leaks.total, len(self.straddlers)
        parts = [f"{_counted(pairs, 'pair')} of duplicate images"] if pairs else []
        parts += [_counted(groups, "group")] if groups else []
        return f"{' and '.join(parts)} across splits" if parts else None

    @property
    def headline(self) -> str:
        """Images, their shape, classes and task, in a line."""
        channels, height, width = self.image_shape
        kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
        classes = "labels" if self.task == "multilabel" else "classes"
        images = f"{sum(self.num_images.values()):,} {kind} images of {height}x{width} pixels"
        return f"{images}, {len(self.class_names):,} {classes} ({self.task})"

    def remarks(self) -> list[tuple[str, bool]]:
        """What is worth knowing, in a line each, and whether it spoils results."""
        conflicts, repeats, doubtful = self.conflicts.total, self.repeats.total, self.label_issues
        lines = [
            (self.leak_summary or "no duplicates across splits", self.leak_summary is not None),
            (f"{_counted(conflicts, 'pair')} of duplicates whose labels differ", conflicts > 0),
            (f"{_counted(repeats, 'pair')} of duplicates within a split", False),
            (f"{_counted(self.num_outliers, 'outlier')} in size, shape, brightness or contrast", False),
            (f"the largest class has {self.imbalance:.1f} times the training images of the smallest", False),
        ]
        if doubtful is not None:
            lines.append((f"{_counted(len(doubtful), 'label')} a trained network doubts", False))
        if self.skipped:
            lines.append((f"{_counted(len(self.skipped), 'image')} left out as unreadable", True))
        return lines + [(note, False) for note in self.notes]

    @property
    def imbalance(self) -> float:
        """Images of the largest class for one of the smallest, in training; infinite where one has none."""
        counts = self.class_counts["train"]
        return max(counts) / min(counts) if min(counts) else float("inf")

    def to_json(self) -> dict[str, Any]:
        """Plain values; of those of single images the range."""
        plain = {key: value for key, value in asdict(self).items() if key != "values"}
        plain["ranges"] = {
            name: {
                split: dict(zip(("min", "median", "max"), value_range(each), strict=True))
                for split, each in by_split.items()
            }
            for name, by_split in self.values.items()
        }
        return plain


def _counted(count: int, noun: str) -> str:
    """
    >>> _counted(1, "pair"), _counted(1200, "pair"), _counted(0, "group")
    ('1 pair', '1,200 pairs', 'no groups')
    """
    return f"{count or 'no'} {noun}{'s' * (count != 1)}" if count < 1000 else f"{count:,} {noun}s"


def value_range(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Minimum, median and maximum."""
    return float(values.min()), float(np.median(values)), float(values.max())


def examine(name: str, data: ImageDataModule) -> Findings:
    """Looks once at every image of all splits."""
    stores = {split: data.splits[split] for split in SPLITS if split in data.splits}
    measures = {split: measure(store.images) for split, store in stores.items()}
    samples = [sample_at(data, split, place) for split in stores for place in range(len(stores[split]))]
    pairs = find_duplicates(
        np.concatenate([each.thumbnails for each in measures.values()]),
        [digest for each in measures.values() for digest in each.digests],
    )
    splits, labels = (np.array([getattr(sample, each) for sample in samples]) for each in ("split", "label"))
    across = splits[pairs.first] != splits[pairs.second]  # (P,)
    conflicting = labels[pairs.first] != labels[pairs.second]  # (P,)
    values = values_of(stores, measures)
    outliers = find_outliers(values, samples)
    _, channels, height, width = stores["train"].images.shape
    statistics = {split: each.channel_statistics() for split, each in measures.items()}
    return Findings(
        name=name,
        task=task_of(data),
        class_names=tuple(data.class_names),
        image_shape=(channels, height, width),
        class_counts={split: data.class_counts(split) for split in stores},
        num_images={split: len(store) for split, store in stores.items()},
        values=values,
        channel_means={split: mean for split, (mean, _) in statistics.items()},
        channel_stds={split: std for split, (_, std) in statistics.items()},
        leaks=list_duplicates(pairs.select(across), samples),
        repeats=list_duplicates(pairs.select(~across), samples),
        conflicts=list_duplicates(pairs.select(conflicting), samples),
        straddlers=find_straddlers(stores),
        outliers=tuple(outliers[:MAX_LISTED]),
        num_outliers=len(outliers),
        skipped=tuple((str(path), str(reason)) for path, reason in getattr(data, "skipped", ())),
        notes=tuple(getattr(data, "notes", ())),
    )


def task_of(data: ImageDataModule) -> str:
    """ "binary", "multiclass" or "multilabel"."""
    if data.splits["train"].targets.ndim == 2:
        return "multilabel"
    return "binary" if len(data.class_names) == 2 else "multiclass"


def sample_at(data: ImageDataModule, split: str, place: int) -> Sample:
    store = data.splits[split]
    return Sample(split, place, store.ids[place], label_text(store.targets[place], data.class_names))


def label_text(target: Tensor, class_names: Sequence[str]) -> str:
    """The class of an index, or the labels of a row of 0 and 1.

    >>> import torch
    >>> label_text(torch.tensor(1), ["cat", "dog"])
    'dog'
    >>> label_text(torch.tensor([1.0, 0.0, 1.0]), ["red", "white", "plate"])
    'red, plate'
    >>> label_text(torch.tensor([0.0, 0.0]), ["red", "white"])
    'none'
    """
    if target.ndim == 0:
        return class_names[int(target)]
    return ", ".join(class_names[place] for place in target.nonzero().flatten().tolist()) or "none"


def values_of(stores: Mapping[str, ImageStore], measures: Mapping[str, Measures]) -> dict[str, Values]:
    """What is shown as histograms and searched for outliers, by measure and split."""
    values: dict[str, Values] = {}
    sizes = {split: getattr(store, "original_sizes", None) for split, store in stores.items()}
    if all(each is not None for each in sizes.values()):
        sides = {split: each.double().numpy() for split, each in sizes.items() if each is not None}
        values["size"] = {split: np.sqrt(each.prod(1)) for split, each in sides.items()}
        values["aspect ratio"] = {split: each[:, 1] / each[:, 0] for split, each in sides.items()}
    values["brightness"] = {split: each.brightness for split, each in measures.items()}
    values["contrast"] = {split: each.contrast for split, each in measures.items()}
    return values


def find_outliers(values: Mapping[str, Values], samples: Sequence[Sample]) -> list[Outlier]:
    """Images more than five robust standard deviations off in a measure, and those of one colour.

    Sizes and aspect ratios are judged by their logarithms: half as large is as far off as twice as large.
    """
    found: list[Outlier] = []
    for name, by_split in values.items():
        each = np.concatenate(list(by_split.values()))
        scores = robust_scores(np.log2(each) if name in ("size", "aspect ratio") else each)
        far = np.abs(scores) > MIN_SCORE
        if name == "contrast":
            far |= each == 0
        for place in np.flatnonzero(far).tolist():
            found.append(Outlier(samples[place], name, float(each[place]), float(scores[place])))
    return sorted(found, key=lambda outlier: -abs(outlier.score))


def list_duplicates(pairs: Pairs, samples: Sequence[Sample]) -> Duplicates:
    listed = []
    for place in range(min(len(pairs), MAX_LISTED)):
        difference = float(pairs.difference[place])
        kind: Any = "equal" if pairs.equal[place] else "mirrored" if pairs.mirrored[place] else "near"
        first, second = samples[pairs.first[place]], samples[pairs.second[place]]
        listed.append(Duplicate(first, second, kind, difference))
    return Duplicates(len(pairs), tuple(listed))


def find_straddlers(stores: Mapping[str, ImageStore]) -> tuple[Straddler, ...]:
    """Groups that stand in more than one split, in order of their names."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for split, store in stores.items():
        for group in getattr(store, "groups", None) or ():
            counts[group][split] += 1
    return tuple(Straddler(group, dict(each)) for group, each in sorted(counts.items()) if len(each) > 1)
