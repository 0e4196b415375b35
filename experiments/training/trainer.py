"""Builds the Lightning Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from darkroom.lightning_modules.optimization.fsdp import FullySharded

from ..config.trainer_settings import TrainerSettings
from ..errors import RequestError


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


def check_trains_here(settings: TrainerSettings, what: str) -> None:
    """Refuses to do on several machines, or without training, what needs one machine that trains.

    Raises:
        RequestError: `trainer.num_nodes` or `trainer.max_epochs` asks for it.
    """
    if settings.max_epochs == 0:
        raise RequestError(
            f"{what} trains: give trainer.max_epochs. With 0 epochs, first weights are judged by `darkroom "
            "evaluate EXPERIMENT --untrained`"
        )
    if settings.num_nodes > 1:
        raise RequestError(
            f"{what} trains on one machine: set trainer.num_nodes=1. A single run on several is for darkroom "
            "train; a sweep's trials go to several machines with --launcher"
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
