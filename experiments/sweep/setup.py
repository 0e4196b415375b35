"""What a sweep looks at before it starts: data and network, what judges its trials, and the room for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from experiments.config import Experiment, flatten
from experiments.errors import RequestError
from experiments.folds import flattery, load_fold
from experiments.refusals import check_is_defined
from experiments.sweep.running import Slot
from experiments.sweep.space import configuration_keys
from experiments.sweep.strategies import check_options
from experiments.train import prepare
from experiments.trainer import check_trains_here


def prepare_sweep(experiment: Experiment, sources: Sequence[str], overrides: Mapping[str, str]) -> list[str]:
    """Makes network and data as the winner will have them, and the folds of trials that are trained on folds.

    Returns:
        What a user may not expect, in sentences.

    Raises:
        RequestError: The data or the network is not to be had, or trials or winner would not be judged.
    """
    assert experiment.sweep is not None
    check_options(experiment.sweep)
    folds = experiment.sweep.folds
    if folds is not None:
        _check_division(experiment, overrides)
    prepare(experiment)
    try:
        check_is_defined({"sweep.metric": experiment.sweep.metric}, experiment.data)
    except ValueError as error:
        raise RequestError(str(error)) from error
    judged = "val" in experiment.data.splits
    if folds is None:
        if not judged:
            raise RequestError("a sweep is judged on validation images: data.val_fraction must be above 0")
        return experiment.data.notes
    trainer = experiment.trainer
    if not judged and (trainer.monitor is not None or trainer.early_stopping is not None):
        raise RequestError(
            "each fold has validation images that choose its epoch, and the winner would have none: "
            "data.val_fraction must be above 0, or trainer.monitor=null and trainer.early_stopping=null, "
            "with which all of them train to the last epoch"
        )
    load_fold(sources, overrides, folds, 0).load_data()  # which looks at all of the folds
    note = (
        f"each trial is trained {folds} times, and judged once on each fold of the training images; the "
        "winner trains on the recipe's own split"
    )
    return [*experiment.data.notes, note, *([told] if (told := flattery(trainer)) else [])]


def _check_division(experiment: Experiment, overrides: Mapping[str, str]) -> None:
    configured = flatten(experiment.config)
    assert experiment.sweep is not None
    for key in ("data.folds", "data.fold"):
        if configured[key] or key in overrides:
            raise RequestError(
                f"{key} can't be given with sweep.folds={experiment.sweep.folds}, which has each fold be a "
                "trial's validation images once; data.val_fraction says what the winner is validated on"
            )


def share_out(experiment: Experiment, workers: int | None, trials_per_gpu: int) -> list[Slot]:
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
