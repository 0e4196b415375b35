"""What is found in an experiment's images: counts, sizes, duplicates, leaks, outliers, doubtful labels."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ImageValues = dict[str, NDArray[np.float64]]


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
class DatasetFindings:
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
    values: dict[str, ImageValues]
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
        ]
        if math.isinf(self.imbalance):
            lines.append(("not every class has training images", True))
        else:
            share = f"{self.imbalance:.1f} times the training images of the smallest"
            lines.append((f"the largest class has {share}", False))
        if doubtful is not None:
            lines.append((f"{_counted(len(doubtful), 'label')} a trained network doubts", False))
        if self.skipped:
            lines.append((f"{_counted(len(self.skipped), 'image')} left out as unreadable", True))
        return lines + [(note, False) for note in self.notes]

    @property
    def imbalance(self) -> float:
        """Images of the largest class for one of the smallest, in training; infinite where one has none."""
        counts = self.class_counts["train"]
        return max(counts) / min(counts) if min(counts) else math.inf

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
