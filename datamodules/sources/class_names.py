"""Detects likely typos in class names."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..messages import first_few

ALIKE = 0.75  # of difflib's ratio
RARE, RARE_SHARE = 3, 0.1  # images of a class that may be another one's name, or their share of the other's
MAX_COMPARED = 1000  # classes: the names of more, such as species, are alike by nature, and pairs too many


def likely_typos(names: Sequence[str], counts: NDArray[np.number[Any]]) -> list[str]:
    """Sentences about classes that differ in case alone, and rare ones spelled almost like frequent ones.

    Args:
        names: Of the K classes.
        counts: Images of each (K,).

    >>> likely_typos(["daisy", "dasiy", "rose"], np.array([90, 1, 80]))
    ['class dasiy has 1 image and is spelled like daisy, which has 90: a typo?']
    >>> likely_typos(["Rose", "rose"], np.array([40, 80]))
    ['classes Rose (40 images) and rose (80 images) differ in upper and lower case alone: a typo?']
    """
    count_of = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in count_of:
        spellings[name.casefold()].append(name)
    twins = [
        f"classes {' and '.join(f'{name} ({_images(count_of[name])})' for name in several)} differ in upper "
        "and lower case alone: a typo?"
        for several in spellings.values()
        if len(several) > 1
    ]
    alone = [name for several in spellings.values() if len(several) == 1 for name in several]
    near = {name: _nearest(name, count_of) for name in alone} if len(count_of) <= MAX_COMPARED else {}
    typos = [
        f"class {name} has {_images(count_of[name])} and is spelled like {other}, which has "
        f"{count_of[other]}: a typo?"
        for name, other in near.items()
        if other is not None
    ]
    return [
        sentence
        for kind in (twins, typos)
        for sentence in first_few(kind, f"in all, {len(kind)} names of classes look so")
    ]


def _nearest(name: str, count_of: dict[str, int]) -> str | None:
    """The class with far more images that is spelled most like it."""
    count = count_of[name]
    larger = {
        other.casefold(): other
        for other, images in count_of.items()
        if (count <= RARE < images or count <= RARE_SHARE * images) and not _differ_in_numbers(name, other)
    }
    match = difflib.get_close_matches(name.casefold(), larger, n=1, cutoff=ALIKE)
    return larger[match[0]] if match else None


def _differ_in_numbers(name: str, other: str) -> bool:
    """Whether both have digits and all else is the same: grade 1 and grade 2 are no typos of each other."""
    letters = ["".join(sign for sign in each if not sign.isdigit()) for each in (name, other)]
    return letters[0] == letters[1] and all(any(map(str.isdigit, each)) for each in (name, other))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
