"""Known torchvision datasets: splits, shapes, classes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Parts = dict[str, dict[str, Any]]
TRAIN_FLAG: Parts = {"train": {"train": True}, "test": {"train": False}}
TRAIN_TEST: Parts = {"train": {"split": "train"}, "test": {"split": "test"}}
TRAIN_VAL: Parts = {"train": {"split": "train"}, "val": {"split": "val"}}
TRAINVAL_TEST: Parts = {"train": {"split": "trainval"}, "test": {"split": "test"}}
ALL_THREE: Parts = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
VALID: Parts = {**ALL_THREE, "val": {"split": "valid"}}
UNDIVIDED: Parts = {"train": {}}
DIGITS = tuple(map(str, range(10)))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@dataclass(frozen=True)
class Known:
    """What is known of a set without its files.

    Attributes:
        parts: The constructor's arguments of each official part; empty where there are variants.
        shape: (C, H, W) of sets whose images torchvision keeps as one array; None of those in files.
        classes: Their names, where they are few.
        variants: The parts of each variant that the set comes in; the first is the default.
        multilabel: Whether an image has any of several labels.
        sort: Whether torchvision lists the images as the file system does, differently on each machine.
        needs: A library that torchvision reads the set with, and that Darkroom does not bring.
        note: What a user should know, in a sentence.
    """

    parts: Parts = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] | None = None
    variants: dict[str, Parts] = field(default_factory=dict)
    multilabel: bool = False
    sort: bool = False
    needs: str | None = None
    note: str | None = None


def each(parts: Parts, argument: str, values: Iterable[Any]) -> dict[str, Parts]:
    """Variants that differ in one argument of the constructor.

    >>> each({"train": {"train": True}}, "split", ["letters"])
    {'letters': {'train': {'train': True, 'split': 'letters'}}}
    """
    return {
        str(value): {part: {**given, argument: value} for part, given in parts.items()} for value in values
    }


# Of iNaturalist torchvision has no test labels; before 2021 train and validation are one archive.
INATURALIST: dict[str, Parts] = {
    "2021": {"train": {"version": "2021_train"}, "val": {"version": "2021_valid"}},
    "2021_mini": {"train": {"version": "2021_train_mini"}, "val": {"version": "2021_valid"}},
    **{year: {"train": {"version": year}} for year in ("2019", "2018", "2017")},
}
# The labels of Places365's test part are hidden.
PLACES365: dict[str, Parts] = {
    name + suffix: {
        "train": {"split": f"train-{name}", "small": small},
        "val": {"split": "val", "small": small},
    }
    for suffix, small in (("", False), ("_256", True))
    for name in ("standard", "challenge")
}
# Its two parts share no character, for learning from few examples: each is a set of its own.
OMNIGLOT: dict[str, Parts] = {
    "background": {"train": {"background": True}},
    "evaluation": {"train": {"background": False}},
}
# The balanced one is "the most widely applicable" (Cohen et al. 2017).
EMNIST = each(TRAIN_FLAG, "split", ("balanced", "byclass", "bymerge", "letters", "digits", "mnist"))
SETS: dict[str, Known] = {
    "CIFAR10": Known(TRAIN_FLAG, (3, 32, 32), CIFAR10),
    "CIFAR100": Known(TRAIN_FLAG, (3, 32, 32)),
    "CLEVRClassification": Known(TRAIN_VAL),
    "Caltech101": Known(UNDIVIDED),
    "Caltech256": Known(UNDIVIDED),
    "CelebA": Known(VALID, multilabel=True),
    "Country211": Known(VALID),
    "DTD": Known(variants=each(ALL_THREE, "partition", range(1, 11))),
    "EMNIST": Known(
        variants=EMNIST, shape=(1, 28, 28), note="EMNIST's images are transposed, as they lie in its files"
    ),
    "EuroSAT": Known(UNDIVIDED),
    "FER2013": Known(TRAIN_TEST, (1, 48, 48), FER2013),
    "FGVCAircraft": Known(
        variants=each(ALL_THREE, "annotation_level", ("variant", "family", "manufacturer"))
    ),
    "Flowers102": Known(ALL_THREE),
    "Food101": Known(TRAIN_TEST),
    "GTSRB": Known(TRAIN_TEST),
    "INaturalist": Known(variants=INATURALIST, sort=True),
    "ImageNet": Known(TRAIN_VAL),
    "Imagenette": Known(variants=each(TRAIN_VAL, "size", ("full", "320px", "160px"))),
    "KMNIST": Known(TRAIN_FLAG, (1, 28, 28)),
    "Omniglot": Known(variants=OMNIGLOT, sort=True),
    "OxfordIIITPet": Known(TRAINVAL_TEST),
    "PCAM": Known(ALL_THREE, classes=("no tumor", "tumor"), needs="h5py"),
    "Places365": Known(variants=PLACES365),
    "QMNIST": Known(TRAIN_FLAG, (1, 28, 28), DIGITS),
    "RenderedSST2": Known(ALL_THREE),
    # torchvision would download it unasked.
    "SEMEION": Known({"train": {"download": False}}, (1, 16, 16), DIGITS),
    "STL10": Known(TRAIN_TEST, (3, 96, 96)),
    "SUN397": Known(UNDIVIDED, sort=True),
    "SVHN": Known(TRAIN_TEST, (3, 32, 32), DIGITS),
    "StanfordCars": Known(TRAIN_TEST),
    "USPS": Known(TRAIN_FLAG, (1, 16, 16), DIGITS),
}
REFUSED: dict[str, str] = {
    "DatasetFolder": "Darkroom has a source of its own for folders: data.class_path=ImageFolder",
    "FakeData": "Darkroom has a source of its own for generated images: data.class_path=Synthetic",
    "FashionMNIST": "Darkroom has a source of its own for it: data.class_path=FashionMNIST",
    "ImageFolder": "Darkroom has a source of its own for folders: data.class_path=ImageFolder",
    "LFWPairs": "it asks whether two images show one person, and a classifier sees one image",
    "LFWPeople": "its training and test parts share no person, so that no classifier can be tested on it; "
    "people with enough images can be had as folders, with data.class_path=ImageFolder",
    "LSUN": "its images lie in LMDB databases, for which torchvision writes files into the working "
    "folder; export them to folders, for data.class_path=ImageFolder",
    "MNIST": "Darkroom has a source of its own for it: data.class_path=MNIST",
}


def known_set(name: str) -> Known:
    """What is known of a set.

    Raises:
        ValueError: It is none of the sets; says why where it is one of torchvision's.
    """
    if name in REFUSED:
        raise ValueError(f"data.name={name} can't be had from TorchvisionDataset: {REFUSED[name]}")
    if name not in SETS:
        names = {known.lower(): known for known in [*SETS, *REFUSED]}
        near = difflib.get_close_matches(name.lower(), names, n=1)
        raise ValueError(
            f"data.name: no set is named {name!r}; known are {', '.join(SETS)}"
            + (f"; did you mean {names[near[0]]}?" if near else "")
        )
    return SETS[name]


def parts_of(name: str, variant: str | None) -> Parts:
    """The constructor's arguments of each official part of a set, in one of its variants.

    >>> parts_of("Omniglot", None)
    {'train': {'background': True}}

    Raises:
        ValueError: There is no such variant.
    """
    known = known_set(name)
    if not known.variants:
        if variant is not None:
            raise ValueError(f"data.variant: {name} comes in one variant, got {variant!r}; leave it null")
        return known.parts
    if variant is None:
        return next(iter(known.variants.values()))
    if variant not in known.variants:
        raise ValueError(
            f"data.variant: {name} comes as {', '.join(known.variants)}, got {variant!r}; "
            "null takes the first"
        )
    return known.variants[variant]
