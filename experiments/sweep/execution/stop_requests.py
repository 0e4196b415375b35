"""Requests to stop a sweep: by Ctrl-C, once or twice, or by a signal that tells the process to leave."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from experiments import leaving
from experiments.errors import Interrupted, Terminated


class StopRequests:
    """Those made so far.

    Attributes:
        by_ctrl_c: How often.
        to_leave: Whether the process was told to leave.
    """

    def __init__(self) -> None:
        self.by_ctrl_c = 0
        self.to_leave = False

    def __bool__(self) -> bool:
        return self.to_leave or self.by_ctrl_c > 0

    def error(self) -> Interrupted:
        """What the sweep ends with."""
        return Terminated() if self.to_leave else Interrupted()

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Notes what is requested meanwhile, and raises at the second Ctrl-C."""

        def interrupt(number: int, frame: FrameType | None) -> None:
            self.by_ctrl_c += 1
            if self.by_ctrl_c > 1:
                raise self.error()

        def leave(number: int, frame: FrameType | None) -> None:
            self.to_leave = True

        with leaving.answering({signal.SIGINT: interrupt, **dict.fromkeys(leaving.heeded(), leave)}):
            yield
