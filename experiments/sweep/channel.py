"""What a trial's process and its conductor say to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

Verdict = Literal["go on", "prune", "stop"]


@dataclass(frozen=True)
class StoreCall:
    """Something for MLflow, which the conductor alone talks to."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class EpochReport:
    """The metric after an epoch; answered with a verdict."""

    epoch: int
    value: float


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; the last thing its process says.

    Attributes:
        values: The metric at the chosen epoch, then the further objectives; empty where it failed.
        epochs: Epochs trained, those before an interruption included.
        seconds: What they took.
        pruned_epoch: The epoch after which the study called it hopeless.
        failure: The name of the exception of its own that ended it.
        error: What that said, in one line.
        traceback: The whole of it.
        stopped: It was asked to stop, and can go on from its last checkpoint.
    """

    values: tuple[float, ...] = ()
    epochs: int = 0
    seconds: float = 0.0
    pruned_epoch: int | None = None
    failure: str | None = None
    error: str | None = None
    traceback: str | None = None
    stopped: bool = False


class Channel:
    """The trial's end of the pipe. Everything but the outcome is answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def report(self, epoch: int, value: float) -> Verdict:
        verdict: Verdict = self._ask(EpochReport(epoch, value))
        return verdict

    def finish(self, outcome: Outcome) -> None:
        self._connection.send(outcome)

    def _ask(self, message: object) -> Any:
        self._connection.send(message)
        return self._connection.recv()


class RelayedClient:
    """Stands for MLflow's client in a trial's process, where opening a store would take longer than an epoch.

    The conductor makes every call, waits where the store is away, and sends back what it returns.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):  # pickle and copy look for methods that nobody has
            raise AttributeError(method)

        def call(*arguments: Any, **options: Any) -> Any:
            return self._channel._ask(StoreCall(method, arguments, options))

        return call
