"""A trial's process, as seen by the controller."""

from __future__ import annotations

import faulthandler
import os
import signal
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

from ...errors import Terminated
from ...runtime.processes import Descriptor, context, how_it_died, serve_one_master, start
from .messages import Channel, TrialRequest


def start_server(recipe: str) -> None:
    """Starts the server that trials are forked from; it imports, and loads the recipe's images, meanwhile.

    Args:
        recipe: Sources and overrides as JSON; see `darkroom.experiments.sweep.execution.forkserver_preload`.
    """
    os.environ["DARKROOM_WARM_RECIPE"] = recipe
    context.set_forkserver_preload(["darkroom.experiments.sweep.execution.forkserver_preload"])
    forkserver.ensure_running()
    del os.environ["DARKROOM_WARM_RECIPE"]


class Worker:
    """A trial's process, seen from the controller.

    Args:
        task: What it is to train.
        lease: File descriptor of the trial's lease, which the process holds too: while it lives nobody
            else can take the trial; -1 where there is none.
        log: Where what it prints goes.
    """

    def __init__(self, task: TrialRequest, lease: int, log: Path) -> None:
        self.log = log
        self.log.touch()  # it may die before it has written anything
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(task, theirs, Descriptor(lease), log))
        start(self._process)
        theirs.close()

    def end(self) -> None:
        """Waits for a process that has said its last word."""
        self._process.join(timeout=10)
        self.kill()
        self.log.unlink(missing_ok=True)

    def tell_to_leave(self) -> None:
        """Has it save where it stands, and die."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it at once; its trial goes on from the last checkpoint when it is started again."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def was_killed(self) -> bool:
        """Whether it was ended from outside: by a person, a scheduler, or for its memory."""
        self._process.join(timeout=10)
        return self._process.exitcode in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGUSR1)

    def last_words(self) -> str:
        """How it died, in one line."""
        self._process.join(timeout=10)
        how = how_it_died(self._process.exitcode)
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " ".join([f"its process died ({how})", *lines[-1:]])


def _main(task: TrialRequest, connection: Connection, lease: Descriptor, log: Path) -> None:
    serve_one_master()
    with log.open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.enable()
    if task.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = task.gpus
    import torch

    from . import forkserver_preload, trial

    torch.set_num_threads(task.threads)
    channel = Channel(connection)
    try:
        channel.finish(trial.run_trial(task, channel, forkserver_preload.hand_over))
    except Terminated:  # where it stands is saved; now as if it had not heeded the signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
