"""Threads that decode and resize, each of them computing on one core."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


def pool(threads: int) -> ThreadPoolExecutor:
    """This process's pool of that size; a forked process gets its own, for threads do not survive a fork."""
    return _pool(threads, os.getpid())


@lru_cache(maxsize=8)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    together = threading.Barrier(threads + 1, timeout=60)

    def compute_on_one_core() -> None:
        _compute_on(1)
        together.wait()

    number = torch.get_num_threads()
    executor = ThreadPoolExecutor(threads, "decode")
    for _ in range(threads):
        executor.submit(compute_on_one_core)  # each waits for the others, so that each thread takes one
    together.wait()
    _compute_on(number)
    return executor


@contextlib.contextmanager
def one_core_left() -> Iterator[None]:
    """Computes on all of this thread's cores but one, which reads the next batches meanwhile.

    Kernels that are shared out among all of them wait for the thread that shares its core.
    """
    number = torch.get_num_threads()
    torch.set_num_threads(max(1, number - 1))
    try:
        yield
    finally:
        torch.set_num_threads(number)


def _compute_on(cores: int) -> None:
    # torch sets the number for the calling thread, and as the default that every thread takes up when it
    # first asks for the number: hence it is asked for at once.
    torch.set_num_threads(cores)
    torch.get_num_threads()
