"""Runs a function on two processes that talk by gloo."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

WORLD_SIZE = 2


def on_two_processes(work: Callable[[int], object], folder: Path) -> list:
    """What `work(rank)` returns on each."""
    context = multiprocessing.get_context("fork")  # they need not import anything
    processes = [context.Process(target=_main, args=(work, rank, folder)) for rank in range(WORLD_SIZE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD_SIZE)]


def _main(work: Callable[[int], object], rank: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), WORLD_SIZE)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD_SIZE)
    torch.save(work(rank), folder / f"{rank}.pt")
    dist.destroy_process_group()
