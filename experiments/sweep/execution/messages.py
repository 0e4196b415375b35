"""Messages between trial process and controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ...tracking.run import RunRecord

Decision = Literal["go on", "prune", "stop"]


@dataclass(frozen=True)
class TrialRequest:
    """What a trial's process is told.

    Attributes:
        sources: Recipes' names or YAML files; of several the last wins.
        overrides: The command line's keys, the trial's values and its seed.
        metric: The validation metric to report, such as val/accuracy.
        folds: Of the training images, to be trained one after another; None for the recipe's own split.
        objectives: What else it is judged by.
        described: Its name in MLflow.
        record: Its run; None where nothing is recorded.
        threads: How many processor cores it may use.
        gpus: Those it may see, as CUDA_VISIBLE_DEVICES names them; None leaves the choice open.
    """

    sources: Sequence[str]
    overrides: Mapping[str, str]
    metric: str
    folds: int | None
    objectives: Sequence[str]
    described: str
    record: RunRecord | None
    threads: int
    gpus: str | None = None

    def record_through(self, channel: Channel) -> RunRecord | None:
        """Its run, written by the controller."""
        return self.record.through(RelayedClient(channel)) if self.record else None


@dataclass(frozen=True)
class StoreCall:
    """Something for MLflow, which the controller alone talks to."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class EpochReport:
    """The metric after an epoch; answered with a verdict, the study's too unless the epoch is a fold's.

    Attributes:
        epoch: Epochs trained, of the present fold.
        fold: Which one that is, from 0; None in a trial without folds.
    """

    epoch: int
    value: float
    fold: int | None = None


@dataclass(frozen=True)
class FoldReport:
    """The metric of a fold, from 0, that was trained to its end; answered with the study's verdict."""

    fold: int
    value: float


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended; the last thing its process says.

    Attributes:
        values: The metric at the chosen epoch, or its mean over folds, then the further objectives; empty
            where it failed.
        epochs: Epochs trained, those before an interruption included.
        seconds: What they took.
        pruned_epoch: The epoch after which the study called it hopeless.
        pruned_folds: Likewise of folds: how many were trained.
        failure: The name of the exception of its own that ended it.
        error: What that said, in one line.
        traceback: The whole of it.
        stopped: It was asked to stop, and can go on from its last checkpoint.
    """

    values: tuple[float, ...] = ()
    epochs: int = 0
    seconds: float = 0.0
    pruned_epoch: int | None = None
    pruned_folds: int | None = None
    failure: str | None = None
    error: str | None = None
    traceback: str | None = None
    stopped: bool = False

    @property
    def pruned(self) -> bool:
        """Whether the study called it hopeless."""
        return self.pruned_epoch is not None or self.pruned_folds is not None


class Channel:
    """The trial's end of the pipe. Everything but the outcome is answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def report(self, report: EpochReport | FoldReport) -> Decision:
        verdict: Decision = self._ask(report)
        return verdict

    def finish(self, outcome: TrialResult) -> None:
        self._connection.send(outcome)

    def _ask(self, message: object) -> Any:
        self._connection.send(message)
        return self._connection.recv()


class RelayedClient:
    """Stands for MLflow's client in a trial's process, where opening a store would take longer than an epoch.

    The controller makes every call, waits where the store is away, and sends back what it returns.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):  # pickle and copy look for methods that nobody has
            raise AttributeError(method)

        def call(*arguments: Any, **options: Any) -> Any:
            return self._channel._ask(StoreCall(method, arguments, options))

        return call
