"""Threads that decode and resize, each of them computing on one core."""

from __future__ import annotations

import os
import threading
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


def _compute_on(cores: int) -> None:
    # torch sets the number for the calling thread, and as the default that every thread takes up when it
    # first asks for the number: hence it is asked for at once.
    torch.set_num_threads(cores)
    torch.get_num_threads()
