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
        torch.set_num_threads(1)
        together.wait()

    executor = ThreadPoolExecutor(threads, "decode")
    for _ in range(threads):
        executor.submit(compute_on_one_core)  # each waits for the others, so that each thread takes one
    together.wait()
    # torch sets the number for the calling thread, and as the default of threads that start later:
    # that default goes back to what it was.
    torch.set_num_threads(torch.get_num_threads())
    return executor
