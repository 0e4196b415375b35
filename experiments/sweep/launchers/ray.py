"""Copies of the command as tasks on a Ray cluster's machines."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...errors import RequestError
from .remote_command import LAST_LINES, POLL_SECONDS, Copy, Ending

FORWARDED = ("MLFLOW_", "AWS_", "PG")  # to another machine: credentials of the stores


class RayEngine:
    """A task on each machine of the Ray cluster that RAY_ADDRESS names, or of a new one on this machine."""

    def __init__(self, copy: Copy, arguments: argparse.Namespace) -> None:
        if arguments.launcher_option:
            raise RequestError("--launcher-option is for SLURM; Ray's machines are taken as they are")
        # Ray reports on its use otherwise, and repeats no line that two machines print.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        self._ray = importlib.import_module("ray")
        try:
            self._ray.init()
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequestError(
                f"Ray's cluster does not answer: {' '.join(str(error).split())[:300]}"
            ) from None
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        machines, cpus, gpus = share(nodes, arguments.machines, arguments.workers, arguments.trials_per_gpu)
        print(f"{machines} machines of Ray's cluster, on each {cpus} CPUs and {gpus} GPUs", flush=True)
        forwarded = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
        placed = self._ray.remote(_call).options(
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy="SPREAD",
            max_retries=-1,  # of tasks whose node was lost, never of a command that failed
        )
        placed_copy = replace(copy, environment=forwarded, cpus=cpus)
        self._tasks = [placed.remote(placed_copy) for _ in range(machines)]

    @property
    def pending(self) -> int:
        return len(self._tasks)

    def wait(self) -> Iterator[Ending]:
        done, self._tasks = self._ray.wait(self._tasks, num_returns=1, timeout=POLL_SECONDS)
        for task in done:
            try:
                yield self._ray.get(task)
            except self._ray.exceptions.TaskCancelledError:
                yield Ending("Ray", 130, ["stopped"])
            except self._ray.exceptions.RayError as error:
                yield Ending("Ray", 1, str(error).strip().splitlines()[-LAST_LINES:])

    def stop(self, at_once: bool) -> None:
        for task in self._tasks:
            self._ray.cancel(task, force=at_once)


def _call(copy: Copy) -> Ending:
    return copy()


def share(
    nodes: Sequence[Mapping[str, float]], machines: int | None, workers: int | None, trials_per_gpu: int
) -> tuple[int, int, int]:
    """How many of Ray's nodes to use, and how many CPUs and GPUs of each: all, or as `workers` needs.

    Those with GPUs come first, and those without are left out where there are any.

    >>> share([{"CPU": 8.0}, {"CPU": 16.0}], None, None, 1)
    (2, 8, 0)
    >>> share([{"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}], None, 2, 1)
    (1, 16, 2)
    >>> share([{"CPU": 8.0}], 3, 2, 1)
    (3, 2, 0)

    Raises:
        RequestError: No node has as many as `workers` needs.
    """
    sizes = sorted(((int(n.get("GPU", 0)), int(n.get("CPU", 0))) for n in nodes), reverse=True)
    sizes = [(gpus, cpus) for gpus, cpus in sizes if cpus >= 1 and (gpus >= 1) == (sizes[0][0] >= 1)]
    if not sizes:
        raise RequestError("no node of Ray's cluster has a CPU to give")
    chosen = sizes[: machines or len(sizes)]
    gpus, cpus = min(size[0] for size in chosen), min(size[1] for size in chosen)
    if workers is not None:
        room = gpus * trials_per_gpu if gpus else cpus
        if workers > room:
            raise RequestError(f"--workers must be at most {room}, what each of Ray's machines can take")
        used = -(-workers // trials_per_gpu) if gpus else 0
        cpus, gpus = (max(1, cpus * used // gpus) if gpus else workers), used
    return machines or len(chosen), cpus, gpus
