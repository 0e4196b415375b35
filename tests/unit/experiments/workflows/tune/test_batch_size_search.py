"""The search for a batch size, on devices whose memory and speed are known."""

from __future__ import annotations

import pytest

from darkroom.experiments.errors import RunError
from darkroom.experiments.workflows.tune.batch_size_probe import WithinBudget
from darkroom.experiments.workflows.tune.batch_size_search import Asked, Attempt, search, sizes_told


class Device:
    """Holds batches of so many images; its speed grows up to a batch of `saturated`."""

    def __init__(self, room: int, saturated: int = 10**9) -> None:
        self.room = room
        self.saturated = saturated
        self.tried: list[int] = []

    def __call__(self, batch_size: int) -> Attempt | None:
        self.tried.append(batch_size)
        if batch_size > self.room:
            return None
        return Attempt(batch_size, 10.0 * min(batch_size, self.saturated), 100.0 + 2 * batch_size)


@pytest.mark.parametrize("room", [2, 3, 5, 8, 9, 100, 127, 128, 129, 700, 1023])
def test_the_largest_batch_that_fits_is_found_to_an_eighth_of_a_power_of_two(room):
    device = Device(room)
    found = search(device, Asked(10**6, configured=64))
    assert found.largest <= room < found.too_large
    assert found.too_large - found.largest <= max(1, found.largest / 8)
    assert len(set(device.tried)) == len(device.tried)  # each of them takes time


def test_no_batch_is_larger_than_the_images_there_are():
    device = Device(10**6)
    found = search(device, Asked(1286, configured=64))
    assert max(device.tried) == found.largest == 1286
    assert found.too_large is None
    assert "all 1,286 training images fit into one batch" in sizes_told(found)[0]


def test_where_not_even_two_images_fit_it_is_said():
    with pytest.raises(RunError, match=r"not even batches of 2 images fit"):
        search(Device(1), Asked(1000, configured=64))


def test_larger_batches_are_not_tried_once_they_gain_nothing_unless_the_limit_is_sought():
    device = Device(10**6, saturated=64)
    found = search(device, Asked(10**6, configured=64, to_the_limit=False))
    assert found.sufficient == 64
    assert max(device.tried) == 256
    found = search(Device(10**5, saturated=64), Asked(10**6, configured=64))
    assert found.sufficient == 64
    assert found.largest > 90_000


def test_a_batch_that_leaves_few_steps_an_epoch_is_not_suggested_however_fast():
    found = search(Device(10**6), Asked(1286, configured=64))
    assert found.sufficient <= 128
    found = search(Device(10**6), Asked(1286, configured=64, to_the_limit=False))
    assert found.sufficient == found.largest == 128
    assert "fewer than 10 steps an epoch" in sizes_told(found)[0]


@pytest.mark.parametrize(("configured", "accumulated"), [(64, 1), (1000, 1), (1000, 4), (72, 1)])
def test_a_recipe_that_does_not_fit_gets_keys_for_steps_of_as_many_images(configured, accumulated):
    found = search(Device(70), Asked(10**6, configured, accumulated))
    (line,) = [line for line in sizes_told(found) if "do not fit" in line] or [None]
    if configured <= found.largest:
        assert line is None
        return
    size, batches = (int(part.partition(" ")[0]) for part in line.split("=")[1:])
    assert size <= found.largest
    assert size * batches == configured * accumulated  # 64, 1000, 4000 and 72 have such divisors
    assert any(f"see batches of {size}" in line for line in sizes_told(found))


def test_a_step_that_no_batch_that_fits_divides_is_called_nearly_the_same():
    told = sizes_told(search(Device(24), Asked(10**6, configured=61)))
    (line,) = [line for line in told if "do not fit" in line]
    assert "nearly as many in each step (63 for 61): --data.batch_size=21" in line


@pytest.mark.parametrize("constant", [0.0, 500.0])
def test_within_a_budget_nothing_is_tried_that_takes_more(constant):
    tried: list[Attempt] = []

    def measure(batch_size: int) -> Attempt:
        tried.append(Attempt(batch_size, 1.0, limit._before_mib + max(constant, 3.0 * batch_size)))
        return tried[-1]

    limit = WithinBudget(measure, budget_mib=0)
    limit._budget_mib = limit._before_mib + 1000
    found = search(limit, Asked(10**6, configured=64))
    assert all(each.peak_mib <= limit._budget_mib for each in tried)
    if constant == 0:  # 333 images would fit
        assert found.largest >= 288
