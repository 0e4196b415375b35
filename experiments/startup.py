"""Importing without the garbage collector: a million objects and no garbage, a second of every start."""

from __future__ import annotations

import gc
import importlib
from types import ModuleType


def import_module(name: str) -> ModuleType:
    """The module, with what it imports kept out of later collections."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
