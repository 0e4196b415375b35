"""Stops a trial that the study holds for hopeless, without an exception through the Trainer."""

from __future__ import annotations

import optuna
import pytorch_lightning as pl


class Pruning(pl.Callback):
    """Reports each epoch's validation metric and asks the study whether to go on.

    Args:
        trial: The trial that trains.
        metric: What the study improves, such as val/accuracy.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial = trial
        self.metric = metric
        self.pruned_epoch: int | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        self.trial.report(float(trainer.callback_metrics[self.metric]), epoch)
        if self.trial.should_prune():
            self.pruned_epoch = epoch
            trainer.should_stop = True  # the epoch is still recorded
