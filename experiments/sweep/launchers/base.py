"""Launcher interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .remote_command import Ending


class Engine(Protocol):
    """Where copies were placed."""

    @property
    def pending(self) -> int:
        """How many have not ended."""

    def wait(self) -> Iterator[Ending]:
        """Yields the commands that ended, after a moment's wait."""

    def stop(self, at_once: bool) -> None:
        """Interrupts all as Ctrl-C would, or kills them."""
