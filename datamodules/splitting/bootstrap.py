"""Bootstrap samples of the images to train on, for bagging: how often each is taken, by its hash."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..images.store import ImageStore
from .splitters import hash_fraction
from .stratification import Membership

# Probabilities of at most 0, 1, 2, ... of a Poisson variable of mean 1, until they are 1 in float64.
POISSON = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(18)])


def bootstrap_sample(store: ImageStore, seed: int) -> ImageStore:
    """Images as often as `bootstrap_counts` says, in their order."""
    counts = torch.from_numpy(bootstrap_counts(store.ids, store.targets.numpy(), seed))
    return store.select(torch.arange(len(store)).repeat_interleave(counts))


def bootstrap_counts(ids: Sequence[str], targets: NDArray[np.integer], seed: int) -> NDArray[np.int64]:
    """How often a bootstrap sample holds each image: a Poisson number of mean 1, by the image's own hash.

    Of N images drawn with replacement, as bagging has it (Breiman 1996), each is drawn a binomial number of
    times, whose limit this is (Oza and Russell 2001). Drawn by hashes it is the same on every machine and in
    any order of the files, and an added image changes no other's; the sample is N images only on average.
    A class of which no image was drawn keeps the one with the highest hash, so that it is learned.

    Args:
        ids: N sample ids.
        targets: Class indices (N,), or labels (N, K) of 0 and 1.
        seed: Another seed gives another sample.

    Returns:
        Counts (N,), of which about e^-1 are 0.

    >>> ids = [f"image{i}" for i in range(2000)]
    >>> counts = bootstrap_counts(ids, np.arange(2000) % 2, seed=0)
    >>> bool(abs(counts.mean() - 1) < 0.05), bool(abs((counts == 0).mean() - math.exp(-1)) < 0.03)
    (True, True)
    >>> bool((bootstrap_counts(ids[:1000], np.arange(1000) % 2, seed=0) == counts[:1000]).all())
    True
    """
    hashes = np.array([hash_fraction("bootstrap", seed, name) for name in ids])
    counts = np.searchsorted(POISSON, hashes, side="right")
    for members in Membership.of(targets, np.arange(len(ids))).units_by_class():
        if len(members) and not counts[members].any():
            counts[members[hashes[members].argmax()]] = 1
    return counts
