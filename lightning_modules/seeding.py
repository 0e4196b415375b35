"""Per-step seeds for dropout and mixing."""

from __future__ import annotations

import torch

# Keep the draws apart from each other and from the augmentation, which starts from the same seed.
DROPOUT, MIXING = 0x5DEECE66D, 0x2545F4914F


def seed_dropout(seed: int) -> None:
    """Reseeds the global generators, from which layers draw and which checkpoints do not keep.

    Reseeding the generators themselves takes a microsecond where torch.manual_seed takes hundreds.
    """
    seed ^= DROPOUT
    torch.default_generator.manual_seed(seed)
    # Whether any are available is asked of their driver, which takes a sixth of a small step.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)


def mixing_generator(seed: int) -> torch.Generator:
    """On the CPU, so that the same draws are made whatever the device."""
    return torch.Generator().manual_seed(seed ^ MIXING)
