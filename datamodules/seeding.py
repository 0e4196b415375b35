"""Seeds derived from (seed, epoch, step)."""

from __future__ import annotations

import hashlib
import struct

import torch


def derive_seed(*parts: int) -> int:
    """One 63-bit seed from several integers, such as (seed, epoch, step).

    >>> derive_seed(0, 1, 2) == derive_seed(0, 1, 2)
    True
    >>> derive_seed(0, 1, 2) == derive_seed(0, 2, 1)
    False
    """
    packed = struct.pack(f">{len(parts)}q", *parts)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "big") >> 1


def generator_for(device: torch.device | str, *parts: int) -> torch.Generator:
    """A generator on `device`, seeded from `parts`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))
