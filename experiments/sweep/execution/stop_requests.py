"""Ctrl-C and termination requests."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from ...errors import Interrupted, Terminated
from ...runtime import signals


class StopRequests:
    """Counts the requests to stop.

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

        with signals.answering({signal.SIGINT: interrupt, **dict.fromkeys(signals.heeded(), leave)}):
            yield
