"""Handlers for SIGTERM and SIGUSR1."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
Answer = Callable[[int, FrameType | None], None]


def heeded() -> list[signal.Signals]:
    """Returns the signals that this process does not ignore; whoever started it so has a reason."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def ignore() -> None:
    """For a process that leaves already, or whose master answers for it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def answering(answers: Mapping[signal.Signals, Answer]) -> Iterator[None]:
    """Has the signals answered so meanwhile."""
    before = {number: signal.signal(number, answer) for number, answer in answers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
