"""Batches are slices of a permutation that (seed, epoch) alone decides, and can be taken up anywhere."""

from __future__ import annotations

import multiprocessing
import threading
from itertools import islice

import pytest
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device

from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.loader import Batch, BatchLoader

COUNT, BATCH_SIZE = 23, 5  # five batches, the last of three


def numbered_store() -> ImageStore:
    """Each image is filled with its own number, each target three times it."""
    numbers = torch.arange(COUNT)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(COUNT, 1, 2, 2).clone()
    return ImageStore(images, numbers * 3, [str(number) for number in range(COUNT)])


def loader(seed: int = 0) -> BatchLoader:
    return BatchLoader(numbered_store(), BATCH_SIZE, shuffle=True, seed=seed)


def trace(batches: list[Batch]) -> list[tuple[list[int], int]]:
    return [(batch.indices.tolist(), batch.seed) for batch in batches]


def test_each_epoch_is_a_permutation_of_everything_and_another_one() -> None:
    served = loader()
    epochs = [torch.cat([batch.indices for batch in served]).tolist() for _ in range(4)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert list(range(COUNT)) not in epochs


def test_images_targets_and_indices_belong_together() -> None:
    for batch in loader():
        assert batch.images.dtype == torch.uint8
        assert batch.images[:, 0, 1, 1].tolist() == batch.indices.tolist()
        assert batch.targets.tolist() == [3 * index for index in batch.indices.tolist()]


def test_all_batches_are_full_but_the_last() -> None:
    served = loader()
    assert len(served) == 5
    assert [len(batch.indices) for batch in served] == [5, 5, 5, 5, 3]
    whole = BatchLoader(numbered_store(), COUNT)
    assert (len(whole), [len(batch.indices) for batch in whole]) == (1, [COUNT])


def test_a_last_image_left_alone_joins_the_batch_before() -> None:
    store = numbered_store()
    served = BatchLoader(store.select(torch.arange(21)), BATCH_SIZE, shuffle=True)
    batches = [batch.indices for batch in served]
    assert (len(served), [len(indices) for indices in batches]) == (4, [5, 5, 5, 6])
    assert sorted(torch.cat(batches).tolist()) == list(range(21))
    assert [len(batch.indices) for batch in BatchLoader(store.select(torch.arange(3)), 1)] == [1, 1, 1]
    assert len(list(BatchLoader(store.select(torch.arange(1)), BATCH_SIZE))) == 1


def test_order_depends_on_seed_and_epoch_not_on_the_global_generator() -> None:
    one, other = loader(), loader()
    torch.manual_seed(1)
    first = [trace(list(one)) for _ in range(2)]
    torch.manual_seed(2)
    torch.rand(100)
    assert [trace(list(other)) for _ in range(2)] == first
    assert trace(list(loader(seed=1))) != first[0]


def test_iterating_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(torch.get_rng_state(), before)


def test_no_two_steps_share_a_seed() -> None:
    served = loader()
    seeds = [batch.seed for _ in range(10) for batch in served]
    seeds += [batch.seed for batch in loader(seed=1)]
    assert len(set(seeds)) == 55
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("taken", [0, 1, 3, 4, 5, 7, 10])
def test_a_restored_loader_serves_exactly_what_was_left(taken: int) -> None:
    uninterrupted = loader()
    everything = [step for _ in range(3) for step in trace(list(uninterrupted))]

    killed = loader()
    seen = trace(list(islice((batch for _ in range(3) for batch in killed), taken)))
    state = killed.state_dict()
    restored = loader()
    restored.load_state_dict(state)
    left = [step for _ in range(3) for step in trace(list(restored))][: 15 - taken]

    assert seen == everything[:taken]
    assert left == everything[taken:]


def test_the_state_moves_to_the_next_epoch_with_the_last_batch() -> None:
    # Lightning asks for no batch after the last of len(loader), so the end of the loop may never run.
    served = loader()
    iterator = iter(served)
    for _ in range(5):
        next(iterator)
    assert served.state_dict() == {"epoch": 1, "step": 0}


def test_an_iterator_asked_for_early_and_dropped_skips_nothing() -> None:
    plain, asked = loader(), loader()
    expected = [trace(list(plain)) for _ in range(3)]
    served = []
    for _ in range(3):
        iter(asked)
        early = iter(asked)
        served.append(trace(list(early)))
        iter(asked)
    assert served == expected


def test_an_iterator_asked_for_before_the_state_is_restored_follows_it() -> None:
    killed, restored = loader(), loader()
    list(islice(killed, 2))
    early = iter(restored)
    restored.load_state_dict(killed.state_dict())
    assert trace(list(early)) == trace(list(killed))


def test_unshuffled_batches_come_in_order_every_time() -> None:
    served = BatchLoader(numbered_store(), BATCH_SIZE)
    for _ in range(2):
        assert torch.cat([batch.indices for batch in served]).tolist() == list(range(COUNT))


def test_an_evaluation_that_stopped_early_starts_again_at_the_first_batch() -> None:
    served = BatchLoader(numbered_store(), BATCH_SIZE)
    list(islice(served, 2))
    assert torch.cat([batch.indices for batch in served]).tolist() == list(range(COUNT))


def test_no_worker_processes_or_threads() -> None:
    iterator = iter(loader())
    threads = threading.active_count()
    next(iterator)
    assert multiprocessing.active_children() == []
    assert threading.active_count() == threads


# On another device ---------------------------------------------------------------------------------


def devices(batch: Batch) -> set[str]:
    return {tensor.device.type for tensor in (batch.images, batch.targets, batch.indices)}


def test_a_batch_goes_to_a_device_whole_and_stays_where_it_is_already() -> None:
    batch = shares(2)[0][0]
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert moved.global_targets is not None
    assert devices(moved) == {"meta"} == {moved.global_targets.device.type}
    assert (moved.seed, len(moved.indices)) == (batch.seed, len(batch.indices))
    moved_by_lightning = move_data_to_device(batch, torch.device("meta"))
    assert devices(moved_by_lightning) == {"meta"}


@pytest.mark.parametrize(("room", "expected"), [(COUNT * 4, "meta"), (COUNT * 4 - 1, "cpu")])
def test_images_that_fit_on_the_device_that_trains_are_served_from_there(
    monkeypatch: pytest.MonkeyPatch, room: int, expected: str
) -> None:
    monkeypatch.setattr("darkroom.datamodules.loader.room_on", lambda device: room)
    served = BatchLoader(numbered_store(), BATCH_SIZE, shuffle=True, device=torch.device("meta"))
    assert [devices(batch) for batch in served] == [{expected}] * 5
    assert [len(batch.targets) for batch in served] == [5, 5, 5, 5, 3]


def test_they_are_copied_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr("darkroom.datamodules.loader.room_on", lambda device: asked.append(device) or 2**20)
    served = BatchLoader(numbered_store(), BATCH_SIZE, device=torch.device("meta"))
    for _ in range(3):
        list(served)
    assert len(asked) == 1
    served.store = numbered_store()
    list(served)
    assert len(asked) == 2


def test_images_that_are_cropped_as_they_are_read_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("darkroom.datamodules.loader.room_on", lambda device: 2**20)
    served = BatchLoader(numbered_store(), BATCH_SIZE, crop_scale=(0.5, 1.0), device=torch.device("meta"))
    assert devices(next(iter(served))) == {"cpu"}


# Shared between processes ------------------------------------------------------------------------


def shares(world_size: int, batch_size: int = BATCH_SIZE, shuffle: bool = True) -> list[list[Batch]]:
    return [
        list(BatchLoader(numbered_store(), batch_size, shuffle=shuffle, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_out_each_global_batch_without_padding(shuffle: bool) -> None:
    whole = list(BatchLoader(numbered_store(), BATCH_SIZE, shuffle=shuffle))
    parts = shares(3, shuffle=shuffle)
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        together = torch.cat([part[step].indices for part in parts])
        assert sorted(together.tolist()) == sorted(batch.indices.tolist())
        assert all(torch.equal(part[step].global_targets, batch.targets) for part in parts)
        assert torch.equal(parts[0][step].indices, batch.indices[0::3])


def test_an_empty_share_brings_an_image_without_a_target() -> None:
    last = [part[-1] for part in shares(3, batch_size=7)]  # 23 = 3 * 7 + 2
    assert [len(batch.targets) for batch in last] == [1, 1, 0]
    assert [len(batch.indices) for batch in last] == [1, 1, 0]
    assert torch.equal(last[2].images, last[0].images)


def test_the_randomness_of_a_step_differs_between_processes_and_is_that_of_one_on_the_first() -> None:
    whole = [batch.seed for batch in BatchLoader(numbered_store(), BATCH_SIZE, shuffle=True)]
    first, second = ([batch.seed for batch in part] for part in shares(2))
    assert first == whole
    assert not set(first) & set(second)
