"""Which sample belongs to which split: pure functions of ids and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def hash_fraction(purpose: str, seed: int, sample_id: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments, on every machine.

    >>> round(hash_fraction("val", 0, "train/00001"), 4)
    0.7702
    >>> round(hash_fraction("test", 0, "train/00001"), 4)
    0.2692
    """
    digest = hashlib.blake2b(f"{purpose}\0{seed}\0{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def hold_out(
    ids: Sequence[str], targets: NDArray[np.integer], fraction: float, *, purpose: str, seed: int
) -> NDArray[np.bool_]:
    """Marks the samples to hold out: those whose hash lies below `fraction`.

    Each sample's place depends on its own id alone, so adding images moves no other, and every class
    is held out at the same rate. A class that would be left without a held-out sample gives the one
    with the lowest hash, so that no class goes unjudged; one that would be held out whole keeps the one
    with the highest, so that no class goes unlearned, and a class of one sample keeps it.

    Args:
        ids: N sample ids.
        targets: Class indices (N,).
        fraction: Expected share held out, in [0, 1).
        purpose: What for: draws for another purpose are independent, so that what is held out for
            validation from what testing left is not always the same corner.
        seed: Another seed holds out others.

    Returns:
        Mask (N,), true where held out.

    >>> ids = [f"image{i}" for i in range(2000)]
    >>> mask = hold_out(ids, np.arange(2000) % 2, 0.1, purpose="val", seed=0)
    >>> bool(abs(mask.mean() - 0.1) < 0.02)
    True
    >>> fewer = hold_out(ids[:1000], np.arange(1000) % 2, 0.1, purpose="val", seed=0)
    >>> bool((fewer == mask[:1000]).all())
    True
    """
    if fraction == 0:
        return np.zeros(len(ids), dtype=bool)
    hashes = np.array([hash_fraction(purpose, seed, sample_id) for sample_id in ids])
    held_out = hashes < fraction
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        if held_out[members].all():
            held_out[members[hashes[members].argmax()]] = False
        elif len(members) > 1 and not held_out[members].any():
            held_out[members[hashes[members].argmin()]] = True
    return held_out
