"""The sweep command as run on one machine."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ...runtime.signals import answering

LAST_LINES = 12  # of what the command said on a machine
POLL_SECONDS = 0.2
ENGINE_ENVIRONMENT = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "PMI")  # Lightning obeys these
PR_SET_PDEATHSIG = 1
LEFT = 143  # the status of a command that was told to leave
# What a job of SLURM's hands on to the command. Which processes of a job SLURM itself tells depends on how it
# tracks them; a second SIGINT would mean more than one, so the launcher's Ctrl-C comes as a signal that the
# command ignores.
HANDED_ON = {signal.SIGHUP: signal.SIGINT, signal.SIGTERM: signal.SIGTERM}


@dataclass(frozen=True)
class Ending:
    """How the command ended on one machine."""

    host: str
    status: int
    last_lines: Sequence[str]


@dataclass(frozen=True)
class Copy:
    """The command for one machine; Ray and submitit carry it there and call it.

    Args:
        arguments: Of `darkroom`.
        folder: Where to run it. A machine without that folder uses a temporary one.
        recipes: The text of each file among the arguments, for such a machine.
        needs_folder: Whether the study is kept in that folder.
        environment: Variables to set.
        cpus: How many processor cores the engine gives; None to do as SLURM says.
    """

    arguments: Sequence[str]
    folder: str
    recipes: Mapping[str, str]
    needs_folder: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: int | None = None

    def __call__(self) -> Ending:
        """Runs the command to its end, passing on what it prints."""
        host = socket.gethostname()
        with contextlib.ExitStack() as stack:
            folder, arguments = Path(self.folder), list(self.arguments)
            if not folder.is_dir():
                if self.needs_folder:
                    return Ending(host, 2, [f"{host} has no folder {folder}; SQLite needs it shared"])
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-")))
                for number, (source, text) in enumerate(self.recipes.items()):
                    (folder / f"{number}.yaml").write_text(text)
                    arguments = [f"{number}.yaml" if each == source else each for each in arguments]
            return Ending(host, *self._run(arguments, folder))

    def checkpoint(self) -> Any:
        """What submitit queues again when a job's time is up: the same, as nothing is lost."""
        return importlib.import_module("submitit.helpers").DelayedSubmission(self)

    def _run(self, arguments: Sequence[str], folder: Path) -> tuple[int, Sequence[str]]:
        cpus = self.cpus or int(os.environ.get("SLURM_CPUS_ON_NODE", 0)) or len(os.sched_getaffinity(0))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ENGINE_ENVIRONMENT)}
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "darkroom.experiments.sweep.launchers.remote_command",
                str(os.getpid()),
                str(cpus),
                *arguments,
            ],
            cwd=folder,
            env={**kept, **self.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the launcher's terminal comes through the engine alone
        )
        assert process.stdout is not None
        last_lines: deque[str] = deque(maxlen=LAST_LINES)
        reader = threading.Thread(target=_pass_on, args=(process.stdout, last_lines), daemon=True)
        reader.start()
        in_slurm = "SLURM_JOB_ID" in os.environ
        try:
            with handing_on(process) if in_slurm else contextlib.nullcontext():
                while process.poll() is None:
                    try:
                        time.sleep(POLL_SECONDS)
                    except KeyboardInterrupt:
                        process.send_signal(signal.SIGINT)
        finally:
            process.kill()
            process.wait()
            reader.join(timeout=5)
            process.stdout.close()
        if in_slurm and process.returncode == LEFT:
            os._exit(LEFT)  # without a result: a job that was pre-empted is queued again, and has one later
        return process.returncode, list(last_lines)


def handing_on(process: subprocess.Popen[str]) -> contextlib.AbstractContextManager[None]:
    """Has the command told what SLURM tells this process meanwhile."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(HANDED_ON[signal.Signals(number)])

    return answering(dict.fromkeys(HANDED_ON, hand_on))


def _pass_on(lines: Iterable[str], last_lines: deque[str]) -> None:
    for line in lines:
        print(line, end="", flush=True)
        last_lines.append(line.rstrip())


def main(argv: Sequence[str]) -> NoReturn:
    """Becomes the command, in a process that does not outlive the one which Ray or SLURM knows of."""
    parent, cpus, *arguments = argv
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray starts its processes with it blocked
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGUSR2):  # SLURM may tell all processes; the parent answers
        signal.signal(number, signal.SIG_IGN)
    for lease in _pin(int(cpus)):
        os.set_inheritable(lease, True)  # the command holds its cores to its end
    os.execv(sys.executable, [sys.executable, "-m", "darkroom", *arguments])


def _pin(cpus: int) -> list[int]:
    """Keeps to so many cores, which no other process of ours on this machine keeps to.

    Ray only counts cores, and SLURM may; two controllers on all of them would halve each other.
    """
    cores = sorted(os.sched_getaffinity(0))
    if cpus >= len(cores):
        return []
    folder = Path(tempfile.gettempdir()) / f"darkroom-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    taken: list[int] = []
    leases: list[int] = []
    for core in cores:
        lease = os.open(folder / str(core), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lease)
            continue
        taken.append(core)
        leases.append(lease)
        if len(taken) == cpus:
            break
    others = [core for core in cores if core not in taken]
    os.sched_setaffinity(0, [*taken, *others[: cpus - len(taken)]])
    return leases


if __name__ == "__main__":
    main(sys.argv[1:])
