"""EMA and SWA callback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.loader import BatchLoader
from darkroom.lightning_modules.classifier import ImageClassifier

from ...config.trainer_settings import Averaging
from ..feature_cache import FeatureData

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAveraging(pl.Callback):
    """Keeps the average, has validation judge it, and puts it where checkpoints keep the weights.

    Lightning's callback of this name averages the buffers of the loss too, evaluates the initial weights
    until averaging starts, and measures no statistics of batch-norm.

    Buffers are averaged with the weights, as timm does it: with ema, batch-norm's running statistics are
    those of nearly the same weights. Of swa's distant weights they would say nothing.
    """

    def __init__(self, settings: Averaging) -> None:
        self.settings = settings
        self._average: AveragedModel | None = None
        self._restored: tuple[dict[str, Tensor], int] | None = None
        self._latest_step = 0
        self._exchanged = False  # the network holds the average, and the other way round

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        network = _network(pl_module)
        self._average = AveragedModel(network, multi_avg_fn=self._move, use_buffers=True)
        if self._restored is not None:
            weights, count = self._restored
            self._average.module.load_state_dict(weights)
            self._average.n_averaged.fill_(count)
        self._latest_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = trainer.global_step > self._latest_step  # accumulated batches make one step
        self._latest_step = trainer.global_step
        if trainer.current_epoch < self.settings.start_epoch:
            return
        assert self._average is not None
        if self.settings.method == "ema" and stepped:
            self._average.update_parameters(_network(pl_module))
        if self.settings.method == "swa" and trainer.is_last_batch:  # validation comes next
            self._average.update_parameters(_network(pl_module))
            with trainer.precision_plugin.forward_context():
                data = trainer.datamodule  # type: ignore[attr-defined]
                images = training_images(
                    data.data if isinstance(data, FeatureData) else data, pl_module.device
                )
                remeasure(self._average.module, _network(pl_module), images)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._begun:
            self._exchange(_network(pl_module))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._exchanged:
            self._exchange(_network(pl_module))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self._begun:
            return
        assert self._average is not None
        trained, averaged = _network(pl_module).state_dict(), self._average.module.state_dict()
        if self._exchanged:
            trained, averaged = averaged, trained
        checkpoint["state_dict"] |= {f"network.{name}": value for name, value in averaged.items()}
        checkpoint["trained_weights"] = trained
        checkpoint["num_averaged"] = int(self._average.n_averaged)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if "trained_weights" not in checkpoint:
            return
        prefix = "network."
        averaged = {
            name.removeprefix(prefix): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(prefix)
        }
        self._restored = averaged, checkpoint["num_averaged"]
        _network(pl_module).load_state_dict(checkpoint["trained_weights"])  # the average was loaded there

    @property
    def _begun(self) -> bool:
        return self._average is not None and bool(self._average.n_averaged > 0)

    def _move(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        """Moves tensors of one type, as AveragedModel hands them over, towards their present values."""
        assert self._average is not None
        if not averaged[0].is_floating_point():  # counts and indices have no mean
            torch._foreach_copy_(averaged, current)
            return
        steps = int(self._average.n_averaged)  # on the CPU, where `count` may be on a GPU
        if self.settings.method == "ema":
            share = 1 - min(self.settings.decay, (1 + steps) / (10 + steps))
        else:
            share = 1 / (1 + steps)
        torch._foreach_lerp_(averaged, current, share)

    @torch.no_grad()
    def _exchange(self, network: nn.Module) -> None:
        assert self._average is not None
        for ours, theirs in zip(_tensors(self._average.module), _tensors(network), strict=True):
            kept = theirs.clone()
            theirs.copy_(ours)
            ours.copy_(kept)
        self._exchanged = not self._exchanged


@torch.no_grad()
def remeasure(average: nn.Module, network: nn.Module, images: Iterable[Tensor]) -> None:
    """Gives the average the batch-norm statistics of its own activations, each batch counting alike.

    As torch's `update_bn`, but everything else stays as in evaluation, so that no dropout changes the
    activations, and norms whose statistics stand still in `network` keep theirs.

    Args:
        average: The averaged network; it is left in the mode of evaluation.
        network: The network that is being trained.
        images: Batches (B, C, H, W), of no order of classes.
    """
    norms = [
        ours
        for ours, theirs in zip(average.modules(), network.modules(), strict=True)
        if isinstance(ours, _BatchNorm) and theirs.training and ours.track_running_stats
    ]
    if not norms:
        return
    average.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
    for batch in images:
        average(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average.eval()


def training_images(data: ImageDataModule, device: torch.device) -> Iterator[Tensor]:
    """All training images as evaluation sees them, in one random order: the same on every process.

    A last batch that is smaller is left out, for it would count as much as the others.
    """
    store = data.splits["train"]
    loader = BatchLoader(store, data.batch_size, shuffle=True, seed=data.seed)
    for batch in islice(loader, max(1, len(store) // data.batch_size)):
        yield data.preprocess(batch.images.to(device))


def _network(pl_module: pl.LightningModule) -> nn.Module:
    assert isinstance(pl_module, ImageClassifier)
    return pl_module.network


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())
