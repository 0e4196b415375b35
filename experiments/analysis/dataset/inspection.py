"""Inspects all images of an experiment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.inspection.duplicates import Pairs, find_duplicates
from darkroom.datamodules.inspection.image_statistics import MIN_SCORE, Measures, measure, robust_scores

from .findings import DatasetFindings, Duplicate, Duplicates, ImageValues, Outlier, Sample, Straddler

SPLITS = ("train", "val", "test")
MAX_LISTED = 1000  # pairs and outliers by name; all are counted


def examine(name: str, data: ImageDataModule) -> DatasetFindings:
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
    return DatasetFindings(
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
        skipped=tuple((each.id, each.reason) for each in getattr(data, "skipped", ())),
        notes=tuple(getattr(data, "notes", ())),
    )


def task_of(data: ImageDataModule) -> str:
    """One of "binary", "multiclass" and "multilabel"."""
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


def values_of(stores: Mapping[str, ImageStore], measures: Mapping[str, Measures]) -> dict[str, ImageValues]:
    """What is shown as histograms and searched for outliers, by measure and split."""
    values: dict[str, ImageValues] = {}
    sizes = {split: getattr(store, "original_sizes", None) for split, store in stores.items()}
    sides = {split: each.double().numpy() for split, each in sizes.items() if each is not None}  # (N, 2)
    if sides and len(np.unique(np.concatenate(list(sides.values())), axis=0)) > 1:
        values["size"] = {split: np.sqrt(each.prod(1)) for split, each in sides.items()}
        values["aspect ratio"] = {split: each[:, 1] / each[:, 0] for split, each in sides.items()}
    values["brightness"] = {split: each.brightness for split, each in measures.items()}
    values["contrast"] = {split: each.contrast for split, each in measures.items()}
    return values


def find_outliers(values: Mapping[str, ImageValues], samples: Sequence[Sample]) -> list[Outlier]:
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
