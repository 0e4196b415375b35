"""What makes a process fast and is set before it imports anything: no garbage collection, memory kept."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
from collections.abc import Iterator
from types import ModuleType

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_memory() -> None:
    """Has freed memory stay with the process, for the next step's tensors.

    glibc gives large tensors back to the kernel at once and has their pages zeroed anew at each step,
    which took four fifths of the time of normalising a batch of photographs. Elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 * 2**20)


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Keeps what is made inside out of this and later garbage collections: a million objects that stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_module(name: str) -> ModuleType:
    """The module, imported without collections."""
    with without_collections():
        return importlib.import_module(name)
