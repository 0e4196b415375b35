"""Signals to steps that are only tried: they end them at once, as there is nothing to save."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from experiments import leaving


class LeaveAtOnce(pl.Callback):
    """Puts back the handlers of signals that were there before Lightning's, which wait for a batch's end."""

    def __init__(self) -> None:
        self._before: Mapping[signal.Signals, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._before = {number: signal.getsignal(number) for number in leaving.SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
