"""Seeds are functions of their parts, the same on every machine."""

from __future__ import annotations

import torch

from darkroom.datamodules.seeding import derive_seed, generator_for


def test_derived_seeds_never_change() -> None:
    # Literal values: a recorded run must draw the same numbers in every release.
    assert derive_seed(0, 1, 2) == 7286398643104651072
    assert derive_seed(3) == 4615528006911447929


def test_every_part_its_place_and_their_number_count() -> None:
    parts = [(), (0,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (-1,), (2**62,)]
    assert len({derive_seed(*each) for each in parts}) == len(parts)


def test_equal_parts_give_equal_draws() -> None:
    draws = [torch.rand(5, generator=generator_for("cpu", *parts)) for parts in [(1, 2), (1, 2), (1, 3)]]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
