"""Process tuning before heavy imports."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_memory() -> None:
    """Has freed memory stay with the process, for the next step's tensors.

    glibc gives large tensors back to the kernel at once and has their pages zeroed anew at each step,
    which took four fifths of the time of normalising a batch of photographs. Elsewhere nothing is done,
    nor where the environment has DARKROOM_KEEP_MEMORY=0: for machines whose memory many share.
    """
    if os.environ.get("DARKROOM_KEEP_MEMORY") == "0":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 * 2**20)


class LateModule(ModuleType):
    """Stands for an installed module until something of it is asked for, which imports it.

    Args:
        name: Of the module.
        unused: What an importer takes of it and does not use, or only asks whether it is there; None.
    """

    def __init__(self, name: str, *unused: str) -> None:
        super().__init__(name)
        if "." not in name:
            self.__spec__ = spec = find_spec(name)  # by which others look whether it is installed
            self.__path__ = (spec.submodule_search_locations if spec else None) or []
        self._unused = unused

    def __getattr__(self, name: str) -> Any:
        if name in self._unused:
            return None
        if name in ("__file__", "__wrapped__"):  # what `inspect` asks all modules for
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
            # One that is being imported asks for the whole, which imports it again.
            for part in [each for each in sys.modules if each.startswith(f"{self.__name__}.")]:
                del sys.modules[part]
        return getattr(importlib.import_module(self.__name__), name)


def spare_imports() -> None:
    """Has torchmetrics, which Lightning imports whole, not import what only metrics of sound and text need.

    Each of the two took a tenth of the time to the first training step.
    """
    sys.modules.setdefault("scipy.signal", LateModule("scipy.signal", "hamming"))
    if find_spec("transformers") is not None:
        sys.modules.setdefault("transformers", LateModule("transformers", "AutoModel", "AutoTokenizer"))


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Keeps what is made inside out of this and later garbage collections: a million objects that stay."""
    gc.disable()
    try:
        yield
    finally:
        freeze()
        gc.enable()


def freeze() -> None:
    """Keeps all present objects out of garbage collections, until the process ends.

    At its end they must be collected: nanobind, of which triton is made, reports each function that is left.
    """
    gc.freeze()
    atexit.unregister(gc.unfreeze)
    atexit.register(gc.unfreeze)


def import_module(name: str) -> ModuleType:
    """The module, imported without collections."""
    with without_collections():
        return importlib.import_module(name)
