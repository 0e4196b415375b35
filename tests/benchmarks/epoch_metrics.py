"""What ranking by log odds costs: the metrics of a validation epoch, from its logits.

python tests/benchmarks/epoch_metrics.py [--rounds 5] [--images 10000]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from bench import arguments, figure, interleaved, ratios, seconds

from darkroom.lightning_modules.task import build_task

CLASSES = (10, 100)


def epoch(classes: int, images: int, exact: bool) -> Callable[[], None]:
    """Computes all metrics of an epoch, ranked by log odds or by float32 probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, classes, generator=generator) * 3
    targets = torch.randint(classes, (images,), generator=generator)
    task = build_task(classes)
    collection = task.metrics()

    def work() -> None:
        probabilities = task.probabilities(logits)
        collection.update(probabilities, targets, ranking=task.log_odds(logits) if exact else probabilities)
        collection.compute()
        collection.reset()

    return work


def main() -> None:
    given = arguments(__doc__, rounds=5, images=(10_000, 300))
    for classes in CLASSES:
        works = {name: epoch(classes, given.images, name == "exact") for name in ("exact", "rounded")}
        taken = interleaved(given.rounds, {name: partial(seconds, work) for name, work in works.items()})
        figure(
            f"epoch_metrics/{classes}_classes", ratios(taken, "exact", "rounded"), "s",
            f"metrics of {given.images:,} images ranked by log odds", "ranked by float32 probabilities",
        )  # fmt: skip


if __name__ == "__main__":
    main()
