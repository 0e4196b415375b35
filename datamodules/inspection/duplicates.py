"""Which images show the same picture: equal ones by their pixels, near ones by perceptual hash.

Found are copies that were re-encoded, resized, brightened, recoloured or mirrored, and neighbouring frames of
a track (moved by a pixel or two, zoomed by a few percent); not crops and rotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.fft import dct

# Figures: tests/benchmarks/duplicates.py. Correlation alone takes all strokes of one slant for copies
# of each other, the difference alone all flat images, both together all smooth ones under the same light.
MIN_CORRELATION = 0.98
MAX_DIFFERENCE = 8.0  # grey levels of 256
# Correlation of what remains without the light. Plates with textures of their own had at most 0.26, copies of
# them at least 0.51 where the texture was weaker than a grey level, and 0.78 otherwise.
MIN_STRUCTURE = 0.5
LIGHT_DEGREE = 4  # of the polynomial in both directions that counts as light
# Of hashes, for a closer look. Frames two pixels of 112 apart in both directions had at least 0.90.
MIN_HASH_CORRELATION, MIN_HASH_STRUCTURE = 0.9, 0.4
MAX_MOVE = 1.0  # pixels of a thumbnail, at its edge where it is zoomed
MIN_SIDE_TO_MOVE = 32  # of thumbnails: in smaller images a pixel is no small move
ROWS_AT_ONCE = 128  # of the matrix of all correlations, which is never there as a whole
PAIRS_AT_ONCE = 2048
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
        """Returns the pairs that a mask (P,) or places name, in the latter's order."""
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
    """Pairs of thumbnails (N, S, S) that show the same, as they are or mirrored.

    They correlate, differ by few grey levels, and correlate without the light, too: each after small moves.
    Perceptual hashes are compared first, and whole thumbnails where those pass.
    """
    hashes, structures = perceptual_hashes(thumbnails), structure_hashes(thumbnails)
    found = [Pairs(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool, np.float32, bool)))]
    for mirrored in (False, True):
        others = thumbnails[:, :, ::-1] if mirrored else thumbnails
        signs = MIRRORING if mirrored else np.ones_like(MIRRORING)
        for first, second in _close(hashes, hashes * signs, thumbnails.shape[1] >= MIN_SIDE_TO_MOVE):
            alike = _correlation(structures[first], structures[second] * signs) >= MIN_HASH_STRUCTURE
            first, second = first[alike], second[alike]
            same, difference = same_picture(thumbnails[first], others[second])
            flags = np.full(int(same.sum()), mirrored)
            found.append(Pairs(first[same], second[same], flags, difference[same], np.zeros_like(flags)))
    return _once(Pairs.join(found))


def same_picture(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], Floats]:
    """Whether thumbnails (P, S, S) show the same, and their difference (see `Pairs`), (P,).

    The second is fitted by the first and by what small moves of it change: a sum of the first, its
    derivatives in both directions, and that along the radius. The derivatives are those midway between the
    two, with which the error grows with the third power of the move.
    """
    size = first.shape[1] ** 2
    pixels = [each.reshape(len(each), size).astype(np.float32) for each in (first, second)]
    midway: Floats = ((pixels[0] + pixels[1]) / np.float32(2)).reshape(first.shape)
    directions = np.concatenate([pixels[0][:, None], _moves(midway)], axis=1)
    target, light = pixels[1], _light(first.shape[1])
    weights, fitted, target_left = _fit(directions, target, light[:, :1])
    moved = np.abs(weights[:, 1:]).max(1, initial=0)
    correlation = _correlation(fitted, target_left)
    one = pixels[0] - pixels[0].mean(1, keepdims=True)
    deviation = np.minimum(np.linalg.norm(one, axis=1), np.linalg.norm(target_left, axis=1)) / np.sqrt(size)
    difference: Floats = deviation * np.sqrt((1 - correlation**2).clip(min=0))
    structure = _correlation(*_fit(directions, target, light)[1:])
    same = (
        (correlation >= MIN_CORRELATION)
        & (difference <= MAX_DIFFERENCE)
        & (structure >= MIN_STRUCTURE)
        & (weights[:, 0] > 0)
        & (moved <= MAX_MOVE * weights[:, 0])
    )
    return same, difference


def _fit(directions: Floats, target: Floats, light: Floats) -> tuple[Floats, Floats, Floats]:
    """Fits (P, D) by K directions (P, K, D) without the light (D, L): weights (P, K), the fit, the target."""
    directions, target = _without(light, directions), _without(light, target)
    products = directions @ directions.transpose(0, 2, 1)  # (P, K, K)
    ridge = np.eye(products.shape[1], dtype=np.float32) * np.float32(1e-3 * target.shape[1])
    weights = np.linalg.solve(products + ridge, directions @ target[:, :, None])
    return weights[:, :, 0], (weights.transpose(0, 2, 1) @ directions)[:, 0], target


def _without(light: Floats, values: Floats) -> Floats:
    """What the light (D, L) leaves of values (..., D)."""
    left: Floats = (values - (values @ light) @ light.T).astype(np.float32, copy=False)
    return left


def _moves(thumbnails: Floats) -> Floats:
    """What a move right, down or outwards changes, per pixel (P, 3, S * S); none of small thumbnails."""
    count, side, _ = thumbnails.shape
    if side < MIN_SIDE_TO_MOVE:
        return np.zeros((count, 0, side**2), np.float32)
    down, right = np.gradient(thumbnails, axis=(1, 2))
    radius = np.linspace(-1, 1, side, dtype=np.float32)
    outwards = right * radius + down * radius[:, None]
    return np.stack([right, down, outwards], axis=1).reshape(count, 3, side**2)


@cache
def _light(side: int) -> Floats:
    """Polynomials over a thumbnail, orthonormal, the constant first: (S * S, L)."""
    waves = legvander(np.linspace(-1, 1, side), LIGHT_DEGREE)
    terms = [(row, column) for row in range(LIGHT_DEGREE + 1) for column in range(LIGHT_DEGREE + 1 - row)]
    images = [np.outer(waves[:, row], waves[:, column]).reshape(-1) for row, column in terms]
    basis: Floats = np.linalg.qr(np.stack(images, axis=1))[0].astype(np.float32)
    return basis


def structure_hashes(thumbnails: NDArray[np.uint8]) -> Floats:
    """Perceptual hashes (N, 63) of thumbnails (N, S, S) without the light."""
    side = thumbnails.shape[1]
    parts = np.split(thumbnails, range(PAIRS_AT_ONCE, len(thumbnails), PAIRS_AT_ONCE))
    pixels = [part.reshape(len(part), side**2).astype(np.float32) for part in parts]
    left = [_without(_light(side), part).reshape(-1, side, side) for part in pixels]
    return np.concatenate([perceptual_hashes(part) for part in left])


def perceptual_hashes(thumbnails: NDArray[np.uint8] | Floats) -> Floats:
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


def _correlation(first: Floats, second: Floats) -> Floats:
    """Returns the correlation of rows (P, D) that have a mean of 0; 0 where one has no norm."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    correlation: Floats = np.einsum("pd,pd->p", first, second) / np.maximum(lengths, 1e-6)
    return correlation


def _close(hashes: Floats, others: Floats, may_move: bool) -> Iterator[tuple[Places, Places]]:
    """Places of hashes and of later others (N, D) that are no further apart than duplicates may be."""
    units, other_units = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-6) for each in (hashes, others)
    )
    for start in range(0, len(hashes), ROWS_AT_ONCE):
        correlations = units[start : start + ROWS_AT_ONCE] @ other_units[start:].T
        least = MIN_HASH_CORRELATION if may_move else MIN_CORRELATION
        all_first, all_second = (places + start for places in np.nonzero(np.triu(correlations >= least, 1)))
        for part in range(0, len(all_first), PAIRS_AT_ONCE):
            first, second = (places[part : part + PAIRS_AT_ONCE] for places in (all_first, all_second))
            if not may_move:  # what the details add can only make the difference larger
                lengths = (np.linalg.norm(each, axis=1) for each in (hashes[first], others[second]))
                left = 1 - _correlation(hashes[first], others[second]) ** 2
                near = np.minimum(*lengths) * np.sqrt(left.clip(min=0)) <= MAX_DIFFERENCE
                first, second = first[near], second[near]
            yield first, second


def _once(pairs: Pairs) -> Pairs:
    """Keeps the better of a pair's two matches, as it is and mirrored."""
    best_first = pairs.select(np.argsort(pairs.difference, kind="stable"))
    keys = np.stack([best_first.first, best_first.second])
    return best_first.select(np.unique(keys, axis=1, return_index=True)[1])
