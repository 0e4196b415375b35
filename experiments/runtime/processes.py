"""Child processes from a forkserver that die with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from typing import Any

context = multiprocessing.get_context("forkserver")


def start(process: ForkServerProcess) -> None:
    """Starts it, from the server that this process was forked from, where it was."""
    if multiprocessing.parent_process() is not None and forkserver.get_inherited_fds() is not None:
        # Python 3.11's would start a server of its own, which has not imported anything.
        forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    process.start()


def serve_one_master() -> None:
    """To be called first in a process that works for another: leaves with it, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group; the master answers it
    threading.Thread(target=_leave_with_master, daemon=True).start()


def _leave_with_master() -> None:
    # The parent that the system knows is the server, so it can't be asked to signal the master's death.
    master = multiprocessing.parent_process()
    assert master is not None
    master.join()
    os._exit(1)


def how_it_died(code: int | None) -> str:
    """A process's exit code in words.

    >>> how_it_died(-9), how_it_died(1)
    ('SIGKILL', 'exit status 1')
    """
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


class Descriptor:
    """A file descriptor that another process gets a copy of when this is sent to it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return (_receive, (DupFd(self.number) if self.number >= 0 else None,))


def _receive(sent: Any) -> Descriptor:
    return Descriptor(-1 if sent is None else sent.detach())
