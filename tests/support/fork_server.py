"""Commands in processes of their own that need not import anything: forked from one that has.

`start` is to a test what `subprocess.Popen` is. This file is also the program of the server, which gets for
each command a message of JSON with the three pipes that belong to it: the command's output, its errors, and
the one that is told its exit status.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import multiprocessing.util
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

MESSAGE_BYTES = 2**20  # most that a command and its environment take
TICK = 0.02  # seconds between two looks for commands that have ended


class Forked:
    """A command that was started: as much of `subprocess.Popen` as tests use."""

    def __init__(self, pid: int, output: int, errors: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pipes = output, errors
        self._status = status

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("darkroom", timeout or 0)
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the children too that may still write."""
        deadline = None if timeout is None else time.monotonic() + timeout
        said = dict.fromkeys(self._pipes, b"")
        unfinished = set(said)
        while unfinished:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = select.select(list(unfinished), [], [], left)[0]
            if not ready:
                raise subprocess.TimeoutExpired("darkroom", timeout or 0)
            for pipe in ready:
                chunk = os.read(pipe, 2**16)
                said[pipe] += chunk
                if not chunk:
                    unfinished.remove(pipe)
                    os.close(pipe)
        self.wait(timeout)
        output, errors = (text.decode() for text in said.values())
        return output, errors

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def start(arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str], session: bool) -> Forked:
    """A command of `darkroom`, or a program's file with arguments; in a session of its own if asked for."""
    command = {
        "arguments": arguments,
        "folder": str(folder),
        "environment": dict(environment),
        "session": session,
    }
    ours, theirs = zip(*(os.pipe() for _ in range(3)), strict=True)
    server = _server()
    socket.send_fds(server, [json.dumps(command).encode()], theirs)
    for pipe in theirs:
        os.close(pipe)
    return Forked(int(server.recv(16)), *ours)


@functools.cache
def _server() -> socket.socket:
    """One for each process of the test session, with which it ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    return ours


def serve(requests: socket.socket) -> None:
    """Returns in the process of a command alone, once for each."""
    statuses: dict[int, int] = {}
    while True:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pipe = statuses.pop(ended[0])
                os.write(pipe, str(os.waitstatus_to_exitcode(ended[1])).encode())
                os.close(pipe)
        if not select.select([requests], [], [], TICK)[0]:
            continue
        message, pipes, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 3)
        if not message:
            os._exit(0)
        output, errors, status = pipes
        child = os.fork()
        if not child:
            for each in (*statuses.values(), status, requests.fileno()):
                os.close(each)
            become(output=output, errors=errors, **json.loads(message))
            return
        statuses[child] = status
        os.close(output)
        os.close(errors)
        requests.send(str(child).encode())


def become(
    arguments: list[str], folder: str, environment: dict[str, str], session: bool, output: int, errors: int
) -> None:
    """Makes this process look as `python -m darkroom` would have started it."""
    if session:
        os.setsid()
    for number, opened in enumerate((os.open(os.devnull, os.O_RDONLY), output, errors)):
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.path.insert(0, folder)
    stand_by()


def stand_by() -> None:
    """Has a child of this process wait to be the first that its multiprocessing would start anew."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        ours.close()
        os._exit(be_what_is_asked_for(theirs))
    theirs.close()
    start_anew = multiprocessing.util.spawnv_passfds

    def start_waiting(path: str, arguments: list[str], descriptors: list[int]) -> int:
        if ours.fileno() < 0 or "resource_tracker" in arguments[-1]:  # it imports next to nothing
            return int(start_anew(path, arguments, descriptors))
        _, program, *rest = arguments[arguments.index("-c") :]
        asked = {
            "program": program,
            "arguments": rest,
            "descriptors": descriptors,
            "environment": dict(os.environ),
        }
        socket.send_fds(ours, [json.dumps(asked).encode()], descriptors)
        ours.close()
        return child

    multiprocessing.util.spawnv_passfds = start_waiting


def be_what_is_asked_for(requests: socket.socket) -> int:
    """Runs multiprocessing's program as `python -c` does, unless the command ends before; its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 8)
    if not message:
        return 0
    requests.close()
    asked = json.loads(message)
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, 1000) for each in descriptors]
    for number, descriptor in zip(asked["descriptors"], high, strict=True):
        os.dup2(descriptor, number)  # the program knows it by this number
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv[1:] = asked["arguments"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        exec(asked["program"])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    requests = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # the folder of this file
    from darkroom.experiments.runtime.startup import import_module, spare_imports

    spare_imports()
    for name in ("training.run", "sweep.run", "sweep.execution.trial", "cli.evaluate", "tracking.store"):
        import_module(f"darkroom.experiments.{name}")
    for name in (
        "git",
        "matplotlib.backends.backend_agg",
        "mlflow.pyfunc",
        "mlflow.pytorch",
        "mlflow.store.tracking.sqlalchemy_store",
        "networkx",
        "sklearn.datasets",
        "torch._dynamo",
        "torch._functorch.aot_autograd",
        "torch.export",
    ):
        import_module(name)
    serve(requests)
    if sys.argv[1].endswith(".py"):
        del sys.argv[0]
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    from darkroom.experiments.cli.main import main

    sys.exit(main())
