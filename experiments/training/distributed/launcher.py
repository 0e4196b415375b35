"""Starts and supervises the other ranks of a run.

The process that runs the work is rank 0: it alone records, prints, saves and reports. The others train
along with it, each on its device and its share of every batch. They are not Lightning's, whose launcher
would start the command line again. On another machine, the same command only starts the ranks there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
import torch.distributed as dist

from ...config.experiment import Experiment, parse_experiment
from ...config.trainer_settings import TrainerSettings
from ...errors import RankError
from ...runtime import signals
from ...runtime.out_of_memory import is_out_of_memory, out_of_memory
from ...runtime.processes import Descriptor, context, how_it_died, serve_one_master, start
from ..callbacks.epoch_end import EpochRecorder
from ..loop import train_epochs
from ..setup import prepare
from .rendezvous import Node, await_until

DataProvider = Callable[[Experiment], None]
NOTICE_SECONDS = 3.0  # between a collective that fails and the news of who died
HANG_SECONDS = 20.0  # NCCL waits for the dead; a process that still does after this is ended
LEAVE_SECONDS = 30.0  # for a rank that has trained its last epoch


@dataclass(frozen=True)
class RankRequest:
    """What another rank is told.

    Attributes:
        experiment: The configuration, as YAML.
        folder: Where rank 0 keeps checkpoints.
        resumed: Go on from the last of them.
        threads: How many processor cores it may use.
        environment: Where it stands among the others, for Lightning and torch.
        provide_data: Gives the experiment what the server has loaded already.
    """

    experiment: str
    folder: Path
    resumed: bool
    threads: int
    environment: Mapping[str, str]
    provide_data: DataProvider | None


@dataclass(frozen=True)
class Failure:
    """Why a rank left before its time.

    Attributes:
        told: In words, without the rank's number.
        message: Of the exception; empty where the process died.
        at: Unix time; of several failures the first is the cause.
    """

    told: str
    message: str = ""
    at: float = 0.0


class Rank:
    """Another rank's process, seen from rank 0."""

    def __init__(self, number: int, share: RankRequest) -> None:
        self.number = number
        self.connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_main, args=(share, theirs, Descriptor(2)), daemon=True)
        start(self._process)
        theirs.close()

    def listen(self) -> Failure | None:
        """Waits for its next word: None where it is ready, or done."""
        try:
            word: Failure | None = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(NOTICE_SECONDS)
            word = Failure(f"died ({how_it_died(self._process.exitcode)})")
        return word

    def leave(self, seconds: float) -> None:
        """Gives it so long to end by itself."""
        self._process.join(seconds)
        self.kill()
        self.connection.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


class Watch(threading.Thread):
    """Notices when a rank leaves before its time, and ends this process if that left it hanging."""

    def __init__(self, ranks: Sequence[Rank], world_size: int) -> None:
        super().__init__(daemon=True)
        self._waiting = list(ranks)
        self._world_size = world_size
        self._heard = threading.Event()  # of a failure, or that all are done
        self._over = threading.Event()
        self._failure: tuple[Rank, Failure] | None = None

    def run(self) -> None:
        while self._waiting and not self._over.is_set():
            speaking = wait([rank.connection for rank in self._waiting], timeout=0.2)
            heard = [(rank, rank.listen()) for rank in self._waiting if rank.connection in speaking]
            self._waiting = [rank for rank in self._waiting if rank.connection not in speaking]
            failures = [(rank, failure) for rank, failure in heard if failure is not None]
            if failures:
                self._failure = min(failures, key=lambda each: each[1].at)
                self._heard.set()
                if not self._over.wait(HANG_SECONDS):
                    print(f"darkroom: {self.error()}", file=sys.stderr, flush=True)
                    os._exit(1)
                return
        self._heard.set()

    def failure(self, seconds: float) -> Failure | None:
        """The first one, once there was so much time to hear of it; None at once where all are done."""
        self._heard.wait(seconds)
        return self._failure[1] if self._failure else None

    def all_done(self) -> bool:
        return self._heard.is_set() and self._failure is None

    def error(self) -> RankError:
        assert self._failure is not None
        rank, failure = self._failure
        return _error(rank, failure, self._world_size)

    def end(self) -> None:
        self._over.set()
        self.join()


@contextlib.contextmanager
def other_ranks(
    experiment: Experiment, folder: Path, *, resumed: bool = False, provide_data: DataProvider | None = None
) -> Iterator[None]:
    """Has what is trained inside trained by `trainer.devices` processes a machine, this one being rank 0.

    Args:
        experiment: What to train; its data is prepared.
        folder: Where checkpoints lie.
        resumed: Go on from the last of them.
        provide_data: Gives the other ranks' experiments what their server has loaded already.

    Raises:
        RankError: Another rank failed or died.
    """
    devices = experiment.trainer.devices
    node = Node.here(experiment.trainer.num_nodes)
    world_size = node.count * devices
    if world_size == 1:
        yield
        return
    board = node.open_board()
    board.set("task", json.dumps([experiment.to_yaml(), str(folder.resolve()), resumed]))
    threads = torch.get_num_threads()
    share = max(1, threads // devices)
    ranks: list[Rank] = []
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(torch.set_num_threads, threads)
        for number in range(1, devices):
            place = node.environment(number, devices, board.port)
            request = RankRequest(experiment.to_yaml(), folder, resumed, share, place, provide_data)
            ranks.append(Rank(number, request))
            cleanup.callback(ranks[-1].leave, 0)
        _await_ready(ranks, world_size)
        node.others_ready(board)
        watch = Watch(ranks, world_size)
        watch.start()
        cleanup.callback(watch.end)
        cleanup.callback(_leave_group)
        for rank in ranks:  # first of all: whoever waits for this process has no reason to any more
            cleanup.callback(rank.kill)
        torch.set_num_threads(share)
        try:
            with _environment(node.environment(0, devices, board.port)):
                yield
        except RuntimeError as error:  # what a collective raises when another process is gone
            first = watch.failure(NOTICE_SECONDS)
            node.check_others(board)
            if first is None or first.message == str(error):  # it failed here in the same way
                raise
            raise watch.error() from error
        _end_together(ranks, watch)


def _await_ready(ranks: Sequence[Rank], world_size: int) -> None:
    """Waits until each rank has prepared the experiment.

    Raises:
        RankError: One failed or died before.
    """
    for rank in ranks:
        failure = rank.listen()
        if failure is not None:
            raise _error(rank, failure, world_size)


def _end_together(ranks: Sequence[Rank], watch: Watch) -> None:
    """Leaves the process group once all ranks have trained, and has each of them end.

    Raises:
        RankError: One failed or died at the end.
    """
    if watch.failure(LEAVE_SECONDS) is not None:
        raise watch.error()
    assert watch.all_done(), "another rank trains on, though rank 0 has stopped"
    _leave_group()
    watch.end()
    for rank in ranks:
        rank.leave(LEAVE_SECONDS)


def help_train(settings: TrainerSettings) -> bool:
    """Trains along where this machine is not the first of several; whether it was so.

    What is trained, and from which checkpoint on, the first machine says. It alone records.

    Raises:
        RequestError: Nothing says where this machine stands.
        RankError: A process of this machine failed or died, or the first machine does not answer.
    """
    node = Node.here(settings.num_nodes)
    if node.number == 0:
        return False
    board = node.open_board()
    await_until(lambda: board.check(["task"]), "the first machine says nothing of what to train")
    experiment, folder, resumed = json.loads(board.get("task"))
    devices = settings.devices
    first = node.number * devices
    share = max(1, torch.get_num_threads() // devices)
    with contextlib.ExitStack() as cleanup:
        ranks = []
        for local_rank in range(devices):
            place = node.environment(local_rank, devices, node.port)
            ranks.append(
                Rank(first + local_rank, RankRequest(experiment, Path(folder), resumed, share, place, None))
            )
            cleanup.callback(ranks[-1].leave, 0)
        for word in ("ready", "done"):
            for rank in ranks:
                failure = rank.listen()
                if failure is not None:
                    error = _error(rank, failure, node.count * devices)
                    with contextlib.suppress(RuntimeError):  # the first machine may have gone first
                        board.set(f"failed/{node.number}", str(error))
                    raise error
            with contextlib.suppress(RuntimeError):
                board.set(f"{word}/{node.number}", "")
    print(f"machine {node.number} of {node.count} has trained its share; the first one records the run")
    return True


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _error(rank: Rank, failure: Failure, world_size: int) -> RankError:
    return RankError(f"rank {rank.number} of {world_size} {failure.told}")


def _main(share: RankRequest, connection: Connection, errors: Descriptor) -> None:
    serve_one_master()
    signals.ignore()  # rank 0 answers for all
    os.dup2(errors.number, 2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # rank 0 says it all
    os.environ.update(share.environment)
    torch.set_num_threads(share.threads)

    try:
        experiment = parse_experiment([share.experiment], {})
        if share.resumed:
            experiment.model.start_from_scratch()  # the checkpoint's weights follow
        if share.provide_data is not None:
            share.provide_data(experiment)
        prepare(experiment)
        connection.send(None)
        recorder = EpochRecorder(None, experiment.trainer.monitor)
        train_epochs(experiment, recorder, share.folder, resumed=share.resumed)
    except BaseException as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        told = out_of_memory(error) if is_out_of_memory(error) else reason
        failure = Failure(f"failed: {told}", str(error), time.time())
        with contextlib.suppress(OSError):  # rank 0 may have gone first
            connection.send(failure)
        os._exit(1)  # the others' collectives end when its connections close
    connection.send(None)
    _leave_group()
