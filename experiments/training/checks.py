"""Incompatible or impossible training settings."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import AcceleratorRegistry

from darkroom.datamodules.base import ImageDataModule
from darkroom.lightning_modules.backbones.weight_loading import reason
from darkroom.lightning_modules.classifier import ImageClassifier
from darkroom.lightning_modules.metrics.names import RANKING_METRICS
from darkroom.lightning_modules.optimization.optimizers import shares_out
from darkroom.lightning_modules.task import Task

from ..config.hardware_defaults import trains_on_gpu
from ..config.trainer_settings import TrainerSettings
from .trainer import build_trainer

# Lightning's arguments by which a metric would be of a part of its split, or not of an epoch's end.
PARTIAL = {
    "limit_val_batches": "validation is of all its images; data.val_fraction says how many they are",
    "limit_test_batches": "the test is of all its images",
    "overfit_batches": "validation would be of training images; data.train_fraction trains on fewer",
    "fast_dev_run": "metrics would be of one batch; reproduce --budget smoke runs a part of a recipe",
    "val_check_interval": "an epoch is judged at its end; check_val_every_n_epoch judges some epochs alone",
}
PROCESSES_PER_CORE = 4  # more could only be a slip of the hand
HEAD_ALONE = {"linear_then_full": "head_epochs", "gradual": "unfreeze_every"}  # for how many epochs


def check_devices(settings: TrainerSettings) -> None:
    """Refuses an accelerator that this machine lacks, and more devices than it has GPUs, or cores by far.

    Raises:
        ValueError: The settings ask for one of these.
    """
    _check_accelerator(settings.accelerator)
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
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


def check_epochs(settings: TrainerSettings, model: ImageClassifier) -> None:
    """Refuses epochs of the model's that training would never come to.

    Raises:
        ValueError: The model asks for them.
    """
    tuning, last = model.finetuning, settings.max_epochs
    if last == 0:  # nothing is trained
        return
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


def check_takes_extra(settings: TrainerSettings) -> None:
    """Refuses values that Lightning's Trainer does not take, or that metrics suffer by; of settled settings.

    Raises:
        ValueError: `trainer.extra` has such.
    """
    if not settings.extra:
        return
    for name in PARTIAL.keys() & settings.extra.keys():
        if _leaves_whole(name, settings.extra[name]):
            continue
        raise ValueError(
            f"trainer.extra must not have {name}: {PARTIAL[name]}. Of a recorded run, evaluate without it: "
            "--trainer.extra=null"
        )
    try:
        build_trainer(settings, [])
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ValueError(
            f"trainer.extra={settings.extra} is not what Lightning takes: {reason(error)}"
        ) from error
    between = settings.extra.get("check_val_every_n_epoch") or 1
    if settings.monitor is not None and between > settings.max_epochs > 0:
        raise ValueError(
            "trainer.extra: check_val_every_n_epoch must be at most "
            f"trainer.max_epochs={settings.max_epochs}, got {between}: no epoch would be "
            f"validated, and {settings.monitor} could choose none. trainer.monitor=null takes the last epoch"
        )


def _leaves_whole(name: str, value: object) -> bool:
    """Whether this value of one of Lightning's arguments that divide a split is the one that does not.

    >>> [_leaves_whole("limit_val_batches", value) for value in (None, 1.0, 1, 0.5)]
    [True, True, False, False]
    >>> _leaves_whole("overfit_batches", 0.0), _leaves_whole("fast_dev_run", False)
    (True, True)
    """
    if name == "overfit_batches":
        return value == 0
    return value is None or value is False or (isinstance(value, float) and value == 1)


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


def check_is_reported(settings: TrainerSettings, task: Task) -> None:
    """Refuses to choose by a metric that the task does not have.

    Raises:
        ValueError: `trainer.monitor` or `trainer.early_stopping.monitor` is such.
    """
    for key, metric in monitored(settings).items():
        if (name := metric.partition("/")[2]) not in task.metric_names:
            raise ValueError(
                f"{key}: a {task.name} task of {task.num_classes} classes has no {name}; "
                f"it has {', '.join(task.metric_names)}"
            )


def monitored(settings: TrainerSettings) -> dict[str, str]:
    """The validation metrics that choose something, by the keys that name them."""
    named = {"trainer.monitor": settings.monitor}
    if settings.early_stopping is not None:
        named["trainer.early_stopping.monitor"] = settings.early_stopping.monitor
    return {key: metric for key, metric in named.items() if metric is not None}


def check_is_defined(metrics: Mapping[str, str], data: ImageDataModule) -> None:
    """Refuses to choose by a metric that has no value on the validation images.

    Args:
        metrics: By the keys that name them, such as {"trainer.monitor": "val/auroc"}.
        data: With its splits.

    Raises:
        ValueError: A ranking metric is named, and no class or label has both positives and negatives.
    """
    ranking = {key: metric for key, metric in metrics.items() if metric.rpartition("/")[2] in RANKING_METRICS}
    if not ranking or "val" not in data.splits:
        return
    targets = data.splits["val"].targets
    if targets.ndim == 2:
        counts = (targets > 0.5).sum(0)
        if ((counts > 0) & (counts < len(targets))).any():
            return
        there = "each label is either in all of them or in none"
    else:
        present = torch.bincount(targets, minlength=len(data.class_names)).nonzero().flatten().tolist()
        if len(present) > 1:
            return
        there = f"all of them are of class {data.class_names[present[0]]}"
    key, metric = next(iter(ranking.items()))
    raise ValueError(
        f"{key}={metric} has no value on the {len(targets)} validation images, as {there}: it says how far "
        "positives rank above negatives. Hold out more (data.val_fraction), or choose by val/loss"
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
            f"trainer.accelerator={name} is not available: this machine has {', '.join(there)}; "
            "trainer.accelerator=auto takes the fastest"
        )
