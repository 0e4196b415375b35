"""A process that runs one trial: forked from a warm server, and gone when its conductor is."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.sweep.channel import Channel

if TYPE_CHECKING:  # the server is started before any of this is imported
    from experiments.sweep.trial import Task

_context = multiprocessing.get_context("forkserver")


def start_server(recipe: str) -> None:
    """Starts the server that trials are forked from; it imports, and loads the recipe's images, meanwhile.

    Args:
        recipe: Sources and overrides as JSON; see `experiments.sweep.warm`.
    """
    os.environ["DARKROOM_WARM_RECIPE"] = recipe
    _context.set_forkserver_preload(["experiments.sweep.warm"])
    forkserver.ensure_running()
    del os.environ["DARKROOM_WARM_RECIPE"]


class Descriptor:
    """A file descriptor that another process gets a copy of when this is sent to it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return (_receive, (DupFd(self.number) if self.number >= 0 else None,))


def _receive(sent: Any) -> Descriptor:
    return Descriptor(-1 if sent is None else sent.detach())


class Worker:
    """A trial's process, seen from the conductor.

    Args:
        task: What it is to train.
        lease: File descriptor of the trial's lease, which the process holds too: while it lives nobody
            else can take the trial; -1 where there is none.
        log: Where what it prints goes.
    """

    def __init__(self, task: Task, lease: int, log: Path) -> None:
        self.log = log
        self.connection, theirs = _context.Pipe()
        self._process = _context.Process(target=_main, args=(task, theirs, Descriptor(lease), log))
        self._process.start()
        theirs.close()

    def end(self) -> None:
        """Waits for a process that has said its last word."""
        self._process.join(timeout=10)
        self.kill()
        self.log.unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends it at once; its trial goes on from the last checkpoint when it is started again."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def last_words(self) -> str:
        """How it died, in one line."""
        self._process.join(timeout=10)
        code = self._process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.is_file() else []
        return " ".join([f"its process died ({how})", *lines[-1:]])


def _main(task: Task, connection: Connection, lease: Descriptor, log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the conductor answers it
    threading.Thread(target=_leave_with_conductor, daemon=True).start()
    with log.open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.enable()
    if task.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = task.gpu
    import torch

    from experiments.sweep import trial, warm

    torch.set_num_threads(task.threads)
    channel = Channel(connection)
    channel.finish(trial.run_trial(task, channel, warm.hand_over))


def _leave_with_conductor() -> None:
    # The parent that the system knows is the server, so it can't be asked to signal the conductor's death.
    conductor = multiprocessing.parent_process()
    assert conductor is not None
    conductor.join()
    os._exit(1)
