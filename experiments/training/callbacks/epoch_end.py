"""Per-epoch callbacks: recorder, progress line, early stopping."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping

from darkroom.lightning_modules.classifier import ImageClassifier
from darkroom.lightning_modules.metrics.epoch_outputs import Predictions
from darkroom.lightning_modules.metrics.names import is_minimized

from ...config.trainer_settings import TrainerSettings
from ...tracking.run import RunRecord


class EpochRecorder(Checkpoint):
    """Sends each epoch's metrics to the run in one call, before the epoch's checkpoint is written.

    A kill between the two leaves a recorded epoch that is trained again when the run is resumed; it
    is not recorded again, so the store holds every epoch exactly once.

    Lightning calls callbacks of its class Checkpoint after the module's own epoch end, when the
    metrics are there, and in the order of the list: this one must stand before ModelCheckpoint.

    Args:
        run: Where to record; None only keeps the history.
        monitor: The validation metric that chooses the epoch; None chooses the last one.
        continued: The run may hold epochs already.
        prefix: Stands before each metric's name in the run.
    """

    def __init__(
        self, run: RunRecord | None, monitor: str | None, continued: bool = False, prefix: str = ""
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.run = run
        self.monitor = monitor
        self.continued = continued
        self.history: list[dict[str, float]] = []  # one for each epoch, with "epoch" among the keys
        self._chosen: tuple[int, Predictions] | None = None  # of the best epoch seen by this process
        self._recorded_epoch = 0
        self._started_at = 0.0
        self._seconds_before = 0.0  # of an epoch that another process began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started_at = time.perf_counter() - self._seconds_before  # unless an epoch starts
        if self.run is not None and self.continued:
            self._recorded_epoch = self.run.last_epoch(self.prefix)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started_at = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ImageClassifier)
        epoch = trainer.current_epoch + 1  # 1 stands for "after one epoch"
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        metrics["epoch_seconds"] = time.perf_counter() - self._started_at
        self.history.append({"epoch": epoch, **metrics})
        if "val" in pl_module.predictions and epoch == self._best_epoch():
            self._chosen = (epoch, pl_module.predictions["val"])
        if self.run is not None and epoch > self._recorded_epoch:
            self.run.log_metrics({f"{self.prefix}{name}": metrics[name] for name in metrics}, step=epoch)

    def _best_epoch(self) -> int:
        monitor = self.monitor
        judged = [row for row in self.history if monitor in row]  # validation may be of some epochs alone
        if monitor is None or not judged:
            return len(self.history)
        best = (min if is_minimized(monitor) else max)(judged, key=lambda row: row[monitor])
        return int(best["epoch"])

    def validation(self, epoch: int) -> tuple[dict[str, float], Predictions] | None:
        """Returns an epoch's `val/...` metrics and predictions; None where another process saw it."""
        if self._chosen is None or self._chosen[0] != epoch:
            return None
        metrics = {name: value for name, value in self.history[epoch - 1].items() if name.startswith("val/")}
        return metrics, self._chosen[1]

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "epoch_seconds": time.perf_counter() - self._started_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self._seconds_before = state_dict.get("epoch_seconds", 0.0)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """(epoch, value) pairs by metric name."""
        names = {name for row in self.history for name in row if "/" in name}
        return {
            name: [(int(row["epoch"]), row[name]) for row in self.history if name in row]
            for name in sorted(names)
        }


class ResumableEarlyStopping(EarlyStopping):
    """Lightning's, except that a run resumed after the decision to stop does not train on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class StopTogether(Checkpoint):
    """Has all processes of a run stop after the same epoch: the one for which rank 0 was told to.

    A Checkpoint, to stand behind those callbacks, which rank 0 alone has, and before the checkpoints.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.strategy.broadcast(trainer.should_stop)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.strategy.broadcast(trainer.should_stop)


class ProgressLine(Checkpoint):
    """One line for each epoch; on a terminal also how far the present one is.

    A Checkpoint for the same reason as `EpochRecorder`: the epoch's metrics are there.

    Args:
        label: Stands before each line.
        transient: Write a terminal's line over and over, and nothing where there is no terminal.
    """

    def __init__(self, label: str = "", transient: bool = False) -> None:
        super().__init__()
        self.label = label
        self.transient = transient
        self._started_at = 0.0
        self._shown_at = 0.0
        self._steps = 0  # since it started

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start()  # in the midst of an epoch Lightning starts none

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start()

    def _start(self) -> None:
        self._started_at = self._shown_at = time.perf_counter()
        self._steps = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        now = time.perf_counter()
        if now - self._shown_at < 0.25 or not sys.stdout.isatty():
            return
        self._shown_at = now
        rate = self._steps / (now - self._started_at)
        self._show(
            trainer, f"step {batch_idx + 1}/{trainer.num_training_batches}  {rate:.0f} steps/s", end=""
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        assert isinstance(pl_module, ImageClassifier)
        headline = pl_module.task.headline
        names = ("train/loss", f"train/{headline}", "val/loss", f"val/{headline}")
        values = "  ".join(f"{name} {float(metrics[name]):.4f}" for name in names if name in metrics)
        self._show(trainer, f"{values}  {time.perf_counter() - self._started_at:.1f} s", end="\n")

    def _show(self, trainer: pl.Trainer, text: str, end: str) -> None:
        on_terminal = sys.stdout.isatty()
        if self.transient and not on_terminal:
            return
        line = f"{self.label}epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {text}"
        print(f"\r\033[K{line}" if on_terminal else line, end="" if self.transient else end, flush=True)


def build_early_stopping(settings: TrainerSettings) -> EarlyStopping | None:
    stopping = settings.early_stopping
    if stopping is None:
        return None
    return ResumableEarlyStopping(
        monitor=stopping.monitor,
        patience=stopping.patience,
        min_delta=stopping.min_delta,
        mode="min" if is_minimized(stopping.monitor) else "max",
        check_on_train_epoch_end=True,
        check_finite=False,  # the module stops on non-finite losses, and says why
        strict=False,  # an epoch without validation says nothing
    )
