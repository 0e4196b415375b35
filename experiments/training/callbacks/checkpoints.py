"""Best and last checkpoints; saves on SIGTERM."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from darkroom.lightning_modules.metrics.names import is_minimized

from ...config.trainer_settings import TrainerSettings
from ...errors import RequestError, Terminated
from ...runtime import signals


class LastCheckpoint(ModelCheckpoint):
    """Saves `last.ckpt` at the end of each epoch and, within it, every so many steps of the optimizer.

    It also answers the signals that tell the process to leave: it saves after the present step, or after
    the epoch where that was its last one, and raises Terminated. With several processes all of them do.

    Args:
        folder: Where to save.
        every_n_steps: None saves at the ends of epochs alone.
    """

    def __init__(self, folder: Path, every_n_steps: int | None, **options: Any) -> None:
        super().__init__(dirpath=folder, filename="last", monitor=None, **options)
        self._every_n_steps = every_n_steps
        self._heeded: list[signal.Signals] = []
        self._told = False  # to leave
        self._latest_step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._heeded = signals.heeded()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._latest_step = trainer.global_step
        # Lightning has put handlers of its own there, which end the training between batches whose
        # gradients are added. It puts back what it found when it is done.
        for number in signals.SIGNALS:
            signal.signal(number, self._note if number in self._heeded else signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = trainer.global_step > self._latest_step  # else there are gradients, which are not saved
        self._latest_step = trainer.global_step
        if not stepped or trainer.is_last_batch:  # from whose checkpoint Lightning would skip the validation
            return
        told = self._told_anywhere(trainer)
        if told or (self._every_n_steps and trainer.global_step % self._every_n_steps == 0):
            assert self.dirpath is not None
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt", weights_only=False)
        if told:
            raise Terminated

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._told_anywhere(trainer):
            raise Terminated

    def _told_anywhere(self, trainer: pl.Trainer) -> bool:
        return bool(trainer.strategy.reduce_boolean_decision(self._told, all=False))


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which looks at the epochs that were validated alone."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)


def build_checkpoints(folder: Path, settings: TrainerSettings, has_validation: bool) -> list[Checkpoint]:
    """Saves `best.ckpt` when the monitored metric improves, then `last.ckpt`, at the end of each epoch.

    Two callbacks, because Lightning's `save_last` skips epochs that bring no improvement. The last one
    is saved last, so that it knows which was best.
    """
    common: dict[str, Any] = {
        "save_top_k": 1,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    last = LastCheckpoint(folder, settings.checkpoint_every_n_steps, **common)
    if settings.monitor is None or not has_validation:
        return [last]
    mode = "min" if is_minimized(settings.monitor) else "max"
    best = BestCheckpoint(dirpath=folder, filename="best", monitor=settings.monitor, mode=mode, **common)
    return [best, last]


def save_untrained(module: pl.LightningModule, folder: Path) -> int:
    """Saves the weights that a module starts from as its best ones; returns their epoch, which is 0."""
    torch.save({"epoch": -1, "state_dict": module.state_dict()}, folder / "best.ckpt")
    return 0


def chosen_checkpoint(folder: Path) -> Path:
    """The best epoch's checkpoint, or the last one's where nothing is monitored."""
    best = folder / "best.ckpt"
    return best if best.is_file() else folder / "last.ckpt"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents: tensors and plain values alone, so that reading it executes nothing.

    Raises:
        RequestError: The file is damaged, or holds anything else.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise RequestError(
            f"{path} can't be read as a checkpoint, which holds tensors and plain values alone: was it cut "
            f"short, or exchanged? Nothing in it was executed ({' '.join(str(error).split())[:200]})"
        ) from error
    return checkpoint


def load_weights(module: pl.LightningModule, path: Path) -> int:
    """Loads a checkpoint's weights into a built module; returns the epoch they are of, from 1.

    Raises:
        RequestError: The file can't be read.
        RuntimeError: The weights are of another network.
    """
    checkpoint = read_checkpoint(path)
    module.load_state_dict(checkpoint["state_dict"])
    return int(checkpoint["epoch"]) + 1
