"""Search for the largest and the fastest batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import RunError

FIRST = 8
SMALLEST = 2  # batch norms cannot learn from one image
PARTS = 8  # into which a power of two is divided to refine it
WORTH = 0.05  # share of images/s that is worth a larger batch
STEPS_AN_EPOCH = 10  # fewer would be too few updates, however fast


@dataclass(frozen=True)
class Attempt:
    """Training and validation with batches of one size.

    Attributes:
        batch_size: Images.
        images_per_second: In training, its waiting for batches included.
        peak_mib: Memory at its most, in MiB: of tensors on a GPU, of the whole process on the CPU.
    """

    batch_size: int
    images_per_second: float
    peak_mib: float


MeasureBatchSize = Callable[[int], Attempt | None]  # None where a batch of that size does not fit


@dataclass(frozen=True)
class Asked:
    """What a search is to find.

    Attributes:
        num_images: All training images.
        configured: The recipe's batch size.
        accumulated: The batches that the recipe adds up before a step.
        to_the_limit: Find the largest batch that fits; else end where larger ones no longer pay.
    """

    num_images: int
    configured: int
    accumulated: int = 1
    to_the_limit: bool = True

    @property
    def sensible(self) -> int:
        """The largest batch that leaves enough steps an epoch."""
        return max(1, self.num_images // STEPS_AN_EPOCH)


@dataclass(frozen=True)
class BatchSizeSearch:
    """What a search has found.

    Attributes:
        asked: What it was to find.
        attempts: Those that fit, smaller batches first; at least one.
        too_large: The smallest batch that did not fit; None where none was met.
    """

    asked: Asked
    attempts: Sequence[Attempt]
    too_large: int | None

    @property
    def largest(self) -> int:
        """The largest batch that fits."""
        return self.attempts[-1].batch_size

    @property
    def fastest(self) -> Attempt:
        """The attempt with the most images/s, of those that leave enough steps an epoch."""
        sensible = [each for each in self.attempts if each.batch_size <= self.asked.sensible]
        return max(sensible or self.attempts[:1], key=lambda each: each.images_per_second)

    @property
    def sufficient(self) -> int:
        """The smallest batch with nearly as many images/s: larger ones only take fewer steps an epoch."""
        enough = (1 - WORTH) * self.fastest.images_per_second
        return next(each.batch_size for each in self.attempts if each.images_per_second >= enough)


def search(measure: MeasureBatchSize, asked: Asked) -> BatchSizeSearch:
    """Doubles the batch size until it does not fit, or no longer pays, or there are no more images.

    The largest that fits is then refined to an eighth of a power of two.

    Args:
        measure: Trains with a size.
        asked: What is to be found.

    Raises:
        RunError: Not even the smallest batch fits.
    """
    attempts: dict[int, Attempt] = {}
    too_large: int | None = None

    def fits(size: int) -> bool:
        nonlocal too_large
        attempt = measure(size)
        if attempt is None:
            too_large = size if too_large is None else min(size, too_large)
            return False
        attempts[size] = attempt
        return True

    most = asked.num_images if asked.to_the_limit else asked.sensible
    size = min(FIRST, most)
    while not fits(size):
        if size <= SMALLEST:
            raise RunError(f"not even batches of {size} images fit: try data.image_size or bf16-mixed")
        size = max(SMALLEST, size // 2)
    while too_large is None and size < most and (asked.to_the_limit or pays(list(attempts.values()))):
        size = min(2 * size, most)
        fits(size)
    while asked.to_the_limit and too_large is not None:
        largest = max(attempts)
        part = max(1, 2 ** int(math.log2(largest)) // PARTS)
        between = largest + part * ((too_large - largest) // part // 2)
        if between in (largest, too_large):
            break
        fits(between)
    return BatchSizeSearch(asked, [attempts[size] for size in sorted(attempts)], too_large)


def pays(attempts: Sequence[Attempt]) -> bool:
    """Whether the last doublings were worth it: the last alone may be a bad moment of a busy machine.

    >>> pays([Attempt(8, 100, 1), Attempt(16, 150, 1), Attempt(32, 149, 1)])
    True
    >>> pays([Attempt(8, 100, 1), Attempt(16, 150, 1), Attempt(32, 149, 1), Attempt(64, 151, 1)])
    False
    """
    rates = [attempt.images_per_second for attempt in attempts]
    return len(rates) < 3 or max(rates[-2:]) > (1 + WORTH) * max(rates[:-2])


def divide_step(images: int, largest: int) -> tuple[int, int]:
    """A batch size that fits, and how many such batches make a step of so many images.

    Exactly so many where that takes no batches of less than half the size that fits, else a few more.

    >>> divide_step(64, 24), divide_step(300, 80), divide_step(61, 24)
    ((16, 4), (75, 4), (21, 3))
    """
    fewest = math.ceil(images / largest)
    exact = [parts for parts in range(fewest, 2 * fewest + 1) if images % parts == 0]
    parts = exact[0] if exact else fewest
    return math.ceil(images / parts), parts


def sizes_told(found: BatchSizeSearch) -> list[str]:
    """What was found, in sentences with the keys to give.

    >>> attempts = [Attempt(8, 100, 1), Attempt(16, 190, 1), Attempt(24, 194, 1)]
    >>> print(*sizes_told(BatchSizeSearch(Asked(1000, configured=64), attempts, too_large=26)), sep="\\n")
    the largest batch that fits: 24 images (26 are too many): --data.batch_size=24
    the recipe's 64 do not fit; as many in each step (64): --data.batch_size=16 --trainer.accumulate_batches=4
    batch norms and mixing, if there are any, see batches of 16, so with them it is not the same training
    the smallest within 5 % of the most images/s (194): --data.batch_size=16
    """
    asked, lines = found.asked, []
    if found.largest == asked.num_images:
        lines.append(f"all {asked.num_images:,} training images fit into one batch")
    elif asked.to_the_limit:
        assert found.too_large is not None  # nothing else ends such a search
        lines.append(
            f"the largest batch that fits: {found.largest:,} images ({found.too_large:,} are too many): "
            f"--data.batch_size={found.largest}"
        )
    elif found.too_large is not None:
        lines.append(
            f"{found.too_large:,} images were not tried: they might take more than half of the free memory, "
            "and the system kills who takes too much; --memory GIB says how much it may be"
        )
    elif found.largest == asked.sensible:
        lines.append(f"larger batches would leave fewer than {STEPS_AN_EPOCH} steps an epoch")
    if asked.to_the_limit and found.too_large is not None and asked.configured > found.largest:
        images = asked.configured * asked.accumulated
        size, parts = divide_step(images, found.largest)
        as_many = f"as many in each step ({images:,})"
        if size * parts != images:
            as_many = f"nearly as many in each step ({size * parts:,} for {images:,})"
        lines += [
            f"the recipe's {asked.configured:,} do not fit; {as_many}: "
            f"--data.batch_size={size} --trainer.accumulate_batches={parts}",
            f"batch norms and mixing, if there are any, see batches of {size}, so with them it is not the "
            "same training",
        ]
    lines.append(
        f"the smallest within {100 * WORTH:.0f} % of the most images/s "
        f"({found.fastest.images_per_second:,.0f}): --data.batch_size={found.sufficient}"
    )
    return lines
