"""The trainer section of a recipe."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytorch_lightning as pl

from darkroom.lightning_modules.metrics.names import METRIC_NAMES

from ..errors import nearest


@dataclass(frozen=True)
class Averaging:
    """Averaged weights: what validation and test judge, and what checkpoints and the logged model hold.

    Args:
        method: "ema" moves the average after each step; "swa" takes the mean of the weights at the ends of
            epochs (Izmailov et al. 2018; with a constant rate late in training, and trainer.monitor=null
            for the last average), and measures batch-norm's statistics anew on the training images.
        decay: Of ema, in (0, 1): what a step leaves of the average; in the beginning (1 + n) / (10 + n)
            after n steps, where that is less.
        start_epoch: Epochs before averaging begins, in which the weights are as they are trained; for swa
            three quarters of max_epochs are customary.
    """

    method: Literal["ema", "swa"] = "ema"
    decay: float = 0.999
    start_epoch: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(
                f"trainer.averaging.decay must lie in (0, 1), got {self.decay}; 0.999 is customary for "
                "thousands of steps, 0.9999 for hundreds of thousands"
            )
        if self.start_epoch < 0:
            raise ValueError(f"trainer.averaging.start_epoch must be at least 0, got {self.start_epoch}")


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
SET_ALWAYS = ("callbacks", "enable_checkpointing", "enable_model_summary", "num_sanity_val_steps")


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
        max_epochs: Epochs to train at most. With 0 nothing is trained: the weights that the model starts from
            are judged and recorded, as `darkroom evaluate EXPERIMENT --untrained` does.
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
        accumulate_batches: Batches that make a step of the optimizer, whose gradient is the mean over all
            their images. An epoch's last step takes the batches that are left. One large batch would take the
            same step, except that batch norms and mixing see each small batch for itself.
        checkpoint_every_n_steps: Steps of the optimizer after which the last checkpoint is also written, with
            the epoch's outputs so far; null writes it at the ends of epochs alone.
        averaging: Averages the weights; null judges and keeps them as they are trained.
        deterministic: Only algorithms that give the same bits each time, or an error where a GPU has none.
        progress: Show one line per epoch.
        extra: Further arguments of Lightning's Trainer, of those that no key sets, passed as they are.
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
        if self.max_epochs < 0:
            raise ValueError(
                "trainer.max_epochs must be at least 1, or 0 to judge the first weights, "
                f"got {self.max_epochs}"
            )
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


def check_extra(extra: Mapping[str, Any]) -> None:
    """Refuses arguments that Lightning's Trainer does not have, or that are set by keys of ours.

    Raises:
        ValueError: One is given.
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
