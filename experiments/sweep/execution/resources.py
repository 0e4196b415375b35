"""Divides cores and GPUs into trial slots."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ...config.experiment import Experiment
from ...config.search_space.space import configuration_keys
from ...errors import RequestError
from ...training.trainer import check_trains_here


def allocate_slots(experiment: Experiment, workers: int | None, trials_per_gpu: int) -> list[Slot]:
    """Room for `workers` trials at once: the cores divided among them, or GPUs for each.

    More threads than cores would halve what all of them do. A trial that trains on several devices
    takes so many GPUs, or, without them, cores.

    Raises:
        RequestError: There are not that many cores or GPUs.
    """
    devices = experiment.trainer.devices
    check_trains_here(experiment.trainer, "each trial")
    if experiment.sweep is not None and "trainer.devices" in configuration_keys(experiment.sweep):
        raise RequestError("trainer.devices can't be searched: every trial has the same room")
    cores = len(os.sched_getaffinity(0))
    gpus: list[str] = []
    if experiment.trainer.accelerator in ("auto", "gpu", "cuda"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
        gpus = [name for name in names if name]
    if gpus:
        if devices > len(gpus):
            raise RequestError(
                f"each trial asks for {devices} GPUs (trainer.devices), and {len(gpus)} are visible"
            )
        teams = [",".join(gpus[first : first + devices]) for first in range(0, len(gpus), devices)]
        places = teams[: len(gpus) // devices] * trials_per_gpu
        workers = workers or len(places)
        if workers > len(places):
            raise RequestError(
                f"--workers must be at most {len(places)} ({len(gpus)} GPUs, {devices} for each trial, "
                f"--trials-per-gpu {trials_per_gpu}), got {workers}"
            )
        return [Slot(max(1, cores // workers), team) for team in places[:workers]]
    workers = workers or 1
    if devices > cores:
        raise RequestError(f"each trial asks for {devices} cores (trainer.devices); this machine has {cores}")
    if workers * devices > cores:
        each = f", {devices} for each trial (trainer.devices)" if devices > 1 else ""
        raise RequestError(
            f"--workers must be at most {cores // devices}, got {workers}; "
            f"this machine has {cores} cores{each}"
        )
    # Never more than the environment allows (OMP_NUM_THREADS).
    return [Slot(min(cores // workers, torch.get_num_threads())) for _ in range(workers)]


@dataclass(frozen=True)
class Slot:
    """Room for one trial: so many processor cores, and its GPUs if there are any."""

    threads: int
    gpus: str | None = None
