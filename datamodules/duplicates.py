"""Which images show the same picture: equal ones by their pixels, near ones by perceptual hash.

Found are copies that were re-encoded, resized, brightened, recoloured or mirrored; not crops and rotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

# Figures: tests/benchmarks/duplicates.py. Correlation alone takes all strokes of one slant for copies
# of each other, the difference alone all flat images.
MIN_CORRELATION = 0.98
MAX_DIFFERENCE = 8.0  # grey levels of 256
ROWS_AT_ONCE = 128  # of the matrix of all correlations, which is never there as a whole

Places = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """P pairs of images of the same picture.

    Attributes:
        first: Places (P,), each before its partner's.
        second: Places (P,).
        mirrored: Whether one is the other's mirror image, (P,).
        difference: Root mean square between the thumbnails, in grey levels of 256, once brightness and
            contrast are matched, (P,); 0 between equal images.
        equal: Whether they are equal in every pixel, (P,).
    """

    first: Places
    second: Places
    mirrored: NDArray[np.bool_]
    difference: Floats
    equal: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)

    def select(self, chosen: NDArray[np.bool_] | Places) -> Pairs:
        """Those that a mask (P,) or places name, in the latter's order."""
        return Pairs(*(values[chosen] for values in vars(self).values()))

    @staticmethod
    def join(parts: Sequence[Pairs]) -> Pairs:
        """All pairs of at least one part."""
        return Pairs(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


def find_duplicates(thumbnails: NDArray[np.uint8], digests: Sequence[bytes]) -> Pairs:
    """Equal and near duplicates, the most alike first.

    Of several equal images the first stands for all: each other one makes a pair with it, and it alone
    is compared with the rest.

    Args:
        thumbnails: Grey, uint8 (N, S, S).
        digests: N hashes of the images' pixels.
    """
    seen: dict[bytes, int] = {}
    first_alike = np.array([seen.setdefault(digest, place) for place, digest in enumerate(digests)])
    is_copy = first_alike != np.arange(len(digests))  # (N,)
    copies, originals = np.flatnonzero(is_copy), np.flatnonzero(~is_copy)
    no, yes = np.zeros(len(copies), bool), np.ones(len(copies), bool)
    equal = Pairs(first_alike[copies], copies, no, np.zeros(len(copies), np.float32), yes)
    near = near_duplicates(thumbnails[originals])
    near = Pairs(originals[near.first], originals[near.second], near.mirrored, near.difference, near.equal)
    pairs = Pairs.join([equal, near])
    return pairs.select(np.lexsort((pairs.second, pairs.first, pairs.difference, ~pairs.equal)))


def near_duplicates(thumbnails: NDArray[np.uint8]) -> Pairs:
    """Pairs of thumbnails (N, S, S) that correlate, as they are or mirrored, and differ by few grey levels.

    Perceptual hashes are held against each other, and whole thumbnails where those pass.
    """
    hashes = perceptual_hashes(thumbnails)
    found = []
    for mirrored in (False, True):
        others = thumbnails[:, :, ::-1] if mirrored else thumbnails
        for first, second in _close(hashes, hashes * MIRRORING if mirrored else hashes):
            correlation, difference = compare(_centred(thumbnails[first]), _centred(others[second]))
            kept = (correlation >= MIN_CORRELATION) & (difference <= MAX_DIFFERENCE)
            flags = np.full(int(kept.sum()), mirrored)
            found.append(Pairs(first[kept], second[kept], flags, difference[kept], np.zeros_like(flags)))
    return _once(Pairs.join(found))


def perceptual_hashes(thumbnails: NDArray[np.uint8]) -> Floats:
    """The 8x8 lowest frequencies of thumbnails (N, S, S) without the mean, row after row: (N, 63).

    A row's norm is the standard deviation, in grey levels, of the thumbnail with its details smoothed away.

    Of these "pHash" (Krawetz 2011, "Looks Like It", hackerfactor.com) keeps the signs, as 64 bits. Among
    photographs of flowers half the pairs within 10 bits of each other were different pictures; to hold
    the frequencies themselves against each other costs no more, and takes few for each other.
    """
    side = thumbnails.shape[1]
    waves = dct(np.eye(side, dtype=np.float32), axis=0, norm="ortho")[:8]  # (8, S)
    frequencies: Floats = waves @ thumbnails.astype(np.float32) @ waves.T  # (N, 8, 8)
    return frequencies.reshape(-1, 64)[:, 1:] / np.float32(side)


# A picture's hash times this is its mirror image's: waves of odd frequency change their sign.
MIRRORING = np.tile(np.array([1, -1], np.float32), 32)[1:]


def compare(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Correlation of rows (P, D) that have a mean of 0, and how far they differ all the same, (P,).

    The latter is the norm of what remains of the shorter row when the longer one, scaled to fit it best, is
    subtracted.

    >>> correlation, difference = compare(np.array([[3.0, -3.0]]), np.array([[1.0, -1.0]]))
    >>> correlation.round(6).tolist(), difference.round(6).tolist()
    ([1.0], [0.0])
    """
    lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    correlation = np.einsum("pd,pd->p", first, second) / np.maximum(lengths[0] * lengths[1], 1e-6)
    return correlation, np.minimum(*lengths) * np.sqrt((1 - correlation**2).clip(min=0))


def _close(hashes: Floats, others: Floats) -> Iterator[tuple[Places, Places]]:
    """Places of hashes and of later others (N, D) that are no further apart than duplicates may be."""
    units, other_units = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-6) for each in (hashes, others)
    )
    for start in range(0, len(hashes), ROWS_AT_ONCE):
        correlations = units[start : start + ROWS_AT_ONCE] @ other_units[start:].T
        first, second = (places + start for places in np.nonzero(correlations >= MIN_CORRELATION))
        first, second = first[second > first], second[second > first]
        # What the details add can only make the difference larger.
        near = compare(hashes[first], others[second])[1] <= MAX_DIFFERENCE
        yield first[near], second[near]


def _centred(thumbnails: NDArray[np.uint8]) -> Floats:
    """Pixels (P, S * S) with a mean of 0 and a norm that is their standard deviation."""
    pixels = thumbnails.reshape(len(thumbnails), np.prod(thumbnails.shape[1:])).astype(np.float32)
    centred: Floats = (pixels - pixels.mean(1, keepdims=True)) / np.sqrt(np.float32(pixels.shape[1]))
    return centred


def _once(pairs: Pairs) -> Pairs:
    """Those found both as they are and mirrored in the better way alone."""
    best_first = pairs.select(np.argsort(pairs.difference, kind="stable"))
    keys = np.stack([best_first.first, best_first.second])
    return best_first.select(np.unique(keys, axis=1, return_index=True)[1])
