"""The dozen knobs of training, and the Lightning Trainer they build."""

from __future__ import annotations

import inspect
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.callbacks import Checkpoint

from experiments.averaging import Averaging
from experiments.errors import RequestError, nearest
from experiments.hardware import trains_on_gpu
from lightning_modules import ImageClassifier
from lightning_modules.metrics import METRIC_NAMES
from lightning_modules.optimization import shares_out
from lightning_modules.sharding import FullySharded
from lightning_modules.task import Task

MINIMIZED = ("loss", "log_loss", "ece")

PROCESSES_PER_CORE = 4  # more could only be a slip of the hand
NAMED_OTHERWISE = {  # arguments of Lightning's Trainer, with the keys that they are given by
    "max_epochs": "trainer.max_epochs",
    "accelerator": "trainer.accelerator",
    "devices": "trainer.devices",
    "num_nodes": "trainer.num_nodes",
    "precision": "trainer.precision",
    "gradient_clip_val": "trainer.gradient_clip_norm",
    "accumulate_grad_batches": "trainer.accumulate_batches",
    "deterministic": "trainer.deterministic",
    "enable_progress_bar": "trainer.progress",
    "logger": "mlflow.enabled",
}
HEAD_ALONE = {"linear_then_full": "head_epochs", "gradual": "unfreeze_every"}  # for how many epochs
SET_ALWAYS = ("callbacks", "enable_checkpointing", "enable_model_summary", "num_sanity_val_steps")


def is_minimized(metric: str) -> bool:
    """Whether less of this metric is better.

    >>> is_minimized("val/loss"), is_minimized("val/accuracy")
    (True, False)
    """
    return metric.rpartition("/")[2] in MINIMIZED


@dataclass(frozen=True)
class EarlyStopping:
    """When to give up waiting for improvement.

    Args:
        monitor: The validation metric that should improve.
        patience: Epochs without improvement before training stops.
        min_delta: Smallest change that counts as improvement.
    """

    monitor: str = "val/loss"
    patience: int = 10
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_validation_metric("trainer.early_stopping.monitor", self.monitor)
        if self.patience < 1:
            raise ValueError(f"trainer.early_stopping.patience must be at least 1 epoch, got {self.patience}")


@dataclass(frozen=True)
class TrainerSettings:
    """How training goes.

    Args:
        max_epochs: Epochs to train at most.
        monitor: The validation metric whose best epoch gives the checkpoint that is tested; null
            takes the last epoch's.
        early_stopping: Stops when nothing improves; null never does. Off without validation images.
        accelerator: Where to train: "auto" takes a GPU where there is one.
        devices: How many of them, on each machine. Each trains on its share of every batch, with a process of
            its own; batch-norm sees one share at a time.
        strategy: With several devices: "ddp" keeps the whole network on each; "fsdp" shares out its weights,
            gradients and optimizer's state among them, for networks that are too large for one.
        num_nodes: Machines that train together, each given the same command. Data and the project's folder
            are where they are on the first, which records the run.
        precision: Of the arithmetic: 32-true, bf16-mixed or 16-mixed; "auto" takes bf16-mixed where the
            hardware trains this network faster with it. What was taken is what the run records.
        channels_last: Keep each pixel's channels together in memory, which convolutions on most
            processors and on tensor cores read faster; null does so where the hardware is known to.
        tf32: Let a GPU round the factors of 32-bit products to 10 bits of mantissa, many times as fast; null
            does so beside a mixed precision, while 32-true means all its bits.
        compile: The network by torch.compile: faster steps on a GPU, for half a minute or more before the
            first of them, at each start. On the CPU it gained nothing.
        gradient_clip_norm: Largest norm of the gradient; null does not clip.
        accumulate_batches: Batches whose gradients are added before each step.
        checkpoint_every_n_steps: Steps of the optimizer after which the last checkpoint is also written, with
            the epoch's outputs so far; null writes it at the ends of epochs alone.
        averaging: Averages the weights; null judges and keeps them as they are trained.
        deterministic: Only algorithms that give the same bits each time, or an error where a GPU has none.
        progress: Show one line per epoch.
        extra: Further arguments of Lightning's Trainer, passed as they are.
    """

    max_epochs: int = 10
    monitor: str | None = "val/loss"
    early_stopping: EarlyStopping | None = field(default_factory=EarlyStopping)
    accelerator: str = "auto"
    devices: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    num_nodes: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool | None = None
    tf32: bool | None = None
    compile: bool = False
    gradient_clip_norm: float | None = None
    accumulate_batches: int = 1
    checkpoint_every_n_steps: int | None = None
    averaging: Averaging | None = None
    deterministic: bool = True
    progress: bool = True
    extra: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.max_epochs < 1:
            raise ValueError(f"trainer.max_epochs must be at least 1, got {self.max_epochs}")
        if self.monitor is not None:
            check_validation_metric("trainer.monitor", self.monitor)
        if self.devices < 1:
            raise ValueError(f"trainer.devices must be at least 1, got {self.devices}")
        if self.num_nodes < 1:
            raise ValueError(f"trainer.num_nodes must be at least 1, got {self.num_nodes}")
        norm = self.gradient_clip_norm
        if norm is not None and not (norm > 0 and math.isfinite(norm)):
            raise ValueError(f"trainer.gradient_clip_norm must be positive, got {norm}; 1 is customary")
        if self.accumulate_batches < 1:
            raise ValueError(f"trainer.accumulate_batches must be at least 1, got {self.accumulate_batches}")
        if self.checkpoint_every_n_steps is not None and self.checkpoint_every_n_steps < 1:
            raise ValueError(
                f"trainer.checkpoint_every_n_steps must be at least 1, got {self.checkpoint_every_n_steps}; "
                "null writes a checkpoint at the end of each epoch alone"
            )
        if self.averaging is not None and self.averaging.start_epoch >= self.max_epochs:
            raise ValueError(
                f"trainer.averaging.start_epoch must lie below trainer.max_epochs={self.max_epochs}, got "
                f"{self.averaging.start_epoch}; three quarters of them are customary for swa, 0 for ema"
            )
        check_extra(self.extra or {})


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, and moves it there whole.

    Lightning writes it into the system's folder for temporary files. Where that is another file system,
    the move is a copy, and a kill within it would leave half a checkpoint and no other.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        part = Path(f"{path}.part")
        super().save_checkpoint(checkpoint, part, storage_options)
        part.replace(path)


def build_trainer(settings: TrainerSettings, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Lightning's Trainer, of settled settings; what it should do besides stands in `callbacks`."""
    assert settings.precision != "auto"
    _quieten_lightning()
    # Of the whole process, which may have trained something else before.
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = bool(settings.tf32)
    # The other processes are ours; without this a cluster's job scheduler would be asked for them, and
    # Lightning would have it start the job again.
    arguments: dict[str, Any] = {"plugins": [LightningEnvironment(), WholeFiles()]}
    if (world_size := settings.devices * settings.num_nodes) > 1:
        arguments["strategy"] = "ddp" if settings.strategy == "ddp" else FullySharded(world_size)
    return pl.Trainer(
        max_epochs=settings.max_epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        precision=settings.precision,
        gradient_clip_val=settings.gradient_clip_norm,
        accumulate_grad_batches=settings.accumulate_batches,
        deterministic=settings.deterministic,
        callbacks=list(callbacks),
        logger=False,  # a callback records epochs, in an order that survives kills
        enable_progress_bar=False,
        enable_model_summary=False,
        # Where no callback saves, Lightning would add one of its own that does.
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        **(arguments | (settings.extra or {})),
    )


def check_extra(extra: Mapping[str, Any]) -> None:
    """Refuses arguments that Lightning's Trainer does not have, or that are set by keys of ours.

    Raises:
        ValueError: So it is.
    """
    known = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    for name in extra:
        if name in NAMED_OTHERWISE:
            raise ValueError(f"trainer.extra must not have {name}: that is given by {NAMED_OTHERWISE[name]}")
        if name in SET_ALWAYS:
            raise ValueError(f"trainer.extra must not have {name}, which Darkroom sets itself: leave it out")
        if name not in known:
            left = known - NAMED_OTHERWISE.keys() - set(SET_ALWAYS)
            raise ValueError(
                f"trainer.extra: Lightning's Trainer has no argument {name}; {nearest(str(name), left)}"
            )


def check_takes_extra(settings: TrainerSettings) -> None:
    """Refuses values that Lightning's Trainer does not take; of settled settings.

    Raises:
        ValueError: `trainer.extra` has such.
    """
    if not settings.extra:
        return
    try:
        build_trainer(settings, [])
    except (MisconfigurationException, ValueError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"trainer.extra={settings.extra} is not what Lightning takes: {said}") from error


def check_devices(settings: TrainerSettings) -> None:
    """Refuses what this machine does not have: an accelerator, so many GPUs, or nearly so many cores.

    Raises:
        ValueError: So it is.
    """
    _check_accelerator(settings.accelerator)
    gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
    if trains_on_gpu(settings.accelerator) and settings.devices > max(1, gpus):
        raise ValueError(
            f"trainer.devices must be at most {gpus}, the GPUs that are visible, got {settings.devices}; "
            "trainer.accelerator=cpu trains without them"
        )
    if not trains_on_gpu(settings.accelerator) and settings.devices > PROCESSES_PER_CORE * cores:
        raise ValueError(
            f"trainer.devices must be at most {PROCESSES_PER_CORE * cores} here, got {settings.devices}: "
            f"each is a process, and this machine has {cores} cores"
        )


def _check_accelerator(name: str) -> None:
    registered = {each: AcceleratorRegistry[each]["accelerator"] for each in AcceleratorRegistry}
    there = [each for each, accelerator in registered.items() if accelerator.is_available()]
    if name not in ("auto", "gpu", *registered):
        raise ValueError(
            f"trainer.accelerator must be auto, gpu or one of {', '.join(registered)}, got {name!r}; this "
            f"machine has {', '.join(there)}"
        )
    found = {"auto", "gpu", *there} if {"cuda", "mps"} & set(there) else {"auto", *there}
    if name not in found:
        raise ValueError(
            f"trainer.accelerator={name} is not to be had: this machine has {', '.join(there)}; "
            "trainer.accelerator=auto takes the fastest"
        )


def check_epochs(settings: TrainerSettings, model: ImageClassifier) -> None:
    """Refuses epochs of the model's that training would never come to.

    Raises:
        ValueError: The model asks for them.
    """
    tuning, last = model.finetuning, settings.max_epochs
    if (waits := HEAD_ALONE.get(tuning.strategy)) is not None and (epochs := getattr(tuning, waits)) >= last:
        raise ValueError(
            f"model.finetuning.{waits} must lie below trainer.max_epochs={last}, got {epochs}: the head "
            "alone would be trained, which model.finetuning.strategy=linear_probe does faster"
        )
    if (epochs := model.hparams["warmup_epochs"]) > last:
        raise ValueError(
            f"model.warmup_epochs must be at most trainer.max_epochs={last}, got {epochs}: the rate would "
            "never reach model.lr. A tenth of the epochs or less is customary"
        )


def check_one_machine(settings: TrainerSettings, what: str) -> None:
    """Refuses to do with several machines what `darkroom train` alone does.

    Raises:
        RequestError: `trainer.num_nodes` asks for it.
    """
    if settings.num_nodes > 1:
        raise RequestError(
            f"{what} trains on one machine: set trainer.num_nodes=1. A single run on several is for darkroom "
            "train; a sweep's trials go to several machines with --launcher"
        )


def check_goes_with_devices(settings: TrainerSettings, model: ImageClassifier) -> None:
    """Refuses what can't be trained on several devices, or not shared out among them.

    Raises:
        ValueError: The settings or the model ask for it.
    """
    tuning, hparams = model.finetuning, model.hparams
    if settings.devices * settings.num_nodes == 1:
        return
    if tuning.unfreezes:
        raise ValueError(
            f"model.finetuning.strategy={tuning.strategy} trains on one device: several must "
            "train the same parts in all epochs. Set trainer.devices=1 and trainer.num_nodes=1, or take "
            "another strategy"
        )
    given = {
        "model.sam_rho": hparams["sam_rho"] is not None,
        # Lightning does not load the state of an optimizer that has none.
        "model.optimizer_options.momentum=0": (hparams["optimizer_options"] or {}).get("momentum") == 0,
        "model.finetuning.strategy=linear_probe": tuning.strategy == "linear_probe",
        "trainer.averaging": settings.averaging is not None,
        "trainer.compile": settings.compile,
        "trainer.precision=16-mixed": settings.precision == "16-mixed",
        f"model.optimizer={hparams['optimizer']}": not shares_out(
            hparams["optimizer"], hparams["optimizer_options"] or {}
        ),
    }
    if settings.strategy == "fsdp" and any(given.values()):
        keys = ", ".join(key for key, is_given in given.items() if is_given)
        raise ValueError(
            f"trainer.strategy=fsdp does not go with {keys}: leave that out, or take trainer.strategy=ddp, "
            "under which each device holds the whole network"
        )


def check_validation_metric(key: str, metric: str) -> None:
    """Refuses what a choice must not, or can't, rest on.

    Raises:
        ValueError: `metric` is not one of a validation epoch.
    """
    stage, _, name = metric.partition("/")
    if stage != "val":
        raise ValueError(
            f"{key} must be a validation metric such as val/loss or val/accuracy, got {metric!r}: "
            "training metrics reward memorising, and the test set is touched once"
        )
    if name not in METRIC_NAMES:
        raise ValueError(f"{key}: no metric is named {name!r}; {nearest(name, METRIC_NAMES)}")


def check_is_reported(settings: TrainerSettings, task: Task) -> None:
    """Refuses to choose by a metric that the task does not have.

    Raises:
        ValueError: `trainer.monitor` or `trainer.early_stopping.monitor` is such.
    """
    monitored = {"trainer.monitor": settings.monitor}
    if settings.early_stopping is not None:
        monitored["trainer.early_stopping.monitor"] = settings.early_stopping.monitor
    for key, metric in monitored.items():
        if metric is not None and (name := metric.partition("/")[2]) not in task.metric_names:
            raise ValueError(
                f"{key}: a {task.name} task of {task.num_classes} classes has no {name}; "
                f"it has {', '.join(task.metric_names)}"
            )


def _quieten_lightning() -> None:
    # Its hints are about knobs that Darkroom sets, and its device report repeats what the run records.
    for name in (
        "pytorch_lightning.utilities.rank_zero",
        "pytorch_lightning.accelerators",
        "lightning_fabric.utilities.distributed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\.")
