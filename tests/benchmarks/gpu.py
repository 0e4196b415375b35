"""One GPU, or the CPU: images/s of Darkroom's training, its record on, against a bare PyTorch loop.

Synthetic images lie in the GPU's memory. Both have the same network, precision, memory format, compilation,
augmentation, optimizer and batch size. Timed are the steps of an epoch, after one to warm up; what happens
at an epoch's end is in neither.

    python tests/benchmarks/gpu.py [--rounds 3] [--no-compile]
    python tests/benchmarks/gpu.py --device cpu  # resnet18 at 64, and steps of next to nothing
    python tests/benchmarks/gpu.py --device cpu --cases cuda --images 64 --batch-size 16 --no-compile  # a try
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from bench import arguments, figure, interleaved, ratios, workplace

from darkroom.datamodules.seeding import generator_for
from darkroom.experiments.config.experiment import Experiment, parse_experiment
from darkroom.experiments.tracking.run_lifecycle import working_folder
from darkroom.experiments.tracking.store import open_store
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.callbacks.throughput import Throughput
from darkroom.experiments.training.loop import compile_network
from darkroom.experiments.training.run import fit, start_record
from darkroom.experiments.training.setup import prepare
from darkroom.lightning_modules.optimization.optimizers import build_optimizer

NEEDS_GPU = True
DRAWN = 512  # images; more are these again


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        device: Where it says something.
        aim: Least share of the bare loop's images/s, where there is one.
        compiled: By torch.compile, unless it is switched off.
    """

    name: str
    device: str
    backbone: str
    backbone_options: dict[str, Any]
    side: int
    batch_size: int
    images: int
    augmentation: dict[str, float]
    precision: str
    compiled: bool
    aim: float | None


CASES = [
    Case(
        "ResNet-50 at 224, bf16, channels last, compiled", "cuda",
        "resnet50", {}, 224, 256, 12_800, {}, "bf16-mixed", compiled=True, aim=0.95,
    ),
    Case(
        "CIFAR ResNet-20 at 32, cropped and mirrored", "cuda",
        "cifar_resnet", {"depth": 20}, 32, 128, 51_200, {"crop_padding": 4, "horizontal_flip": 0.5},
        "32-true", compiled=False, aim=0.90,
    ),
    Case(
        "ResNet-18 at 64, as the hardware would have it", "cpu",
        "resnet18", {}, 64, 64, 1280, {"crop_padding": 4, "horizontal_flip": 0.5},
        "auto", compiled=False, aim=0.95,
    ),
    Case(
        "steps of next to nothing: four channels on 8x8 pixels", "cpu",
        "small_cnn", {"widths": [4]}, 8, 8, 12_800, {"crop_padding": 1, "horizontal_flip": 0.5},
        "32-true", compiled=False, aim=None,
    ),
]  # fmt: skip


def load(case: Case, arguments: argparse.Namespace) -> Experiment:
    recipe = {
        "name": "benchmark/gpu",
        "data": {
            "class_path": "Synthetic",
            "init_args": {
                "num_images": min(arguments.images or case.images, DRAWN),
                "num_classes": 6,
                "side": case.side,
                "val_fraction": 0.0,
                "batch_size": arguments.batch_size or case.batch_size,
                "augmentation": case.augmentation,
            },
        },
        "model": {
            "class_path": "ImageClassifier",
            "init_args": {
                "backbone": case.backbone,
                "backbone_options": case.backbone_options,
                "optimizer": "sgd",
                "optimizer_options": {"momentum": 0.9},
                "lr": 1.0e-3,
            },
        },
        "trainer": {
            "max_epochs": arguments.epochs + 1,
            "accelerator": arguments.device.replace("cuda", "gpu"),
            "precision": case.precision,
            "channels_last": None if case.precision == "auto" else True,
            "tf32": True,  # in both
            "compile": case.compiled and arguments.compile,
            "deterministic": False,
            "progress": False,
            "extra": {"benchmark": True},
        },
    }
    experiment = parse_experiment([yaml.safe_dump(recipe)], {})
    prepare(experiment)
    store = experiment.data.splits["train"]
    again = torch.arange(arguments.images or case.images) % len(store)
    experiment.data.splits["train"] = store.select(again)
    return experiment


class StepClock(pl.Callback):
    """Seconds of each epoch's steps, on the GPU to their end."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began_at = now(self.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(now(self.device) - self.began_at)


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def darkroom(case: Case, arguments: argparse.Namespace) -> float:
    """images/s with MLflow, every metric, what it costs, and checkpoints."""
    experiment = load(case, arguments)
    record = start_record(experiment, open_store())
    assert record is not None
    clock = StepClock(arguments.device)
    with working_folder(record) as folder:
        recorder = EpochRecorder(record, experiment.trainer.monitor)
        fit(experiment, recorder, folder, callbacks=[clock, Throughput()])
    record.end("FINISHED")
    return len(experiment.data.splits["train"]) / statistics.mean(clock.seconds[1:])


def bare_loop(case: Case, arguments: argparse.Namespace) -> float:
    """images/s of a loop as one would write it for this case alone, all images on the device."""
    experiment = load(case, arguments)
    device, data, hparams = torch.device(arguments.device), experiment.data, experiment.model.hparams
    network = experiment.model.network.to(device).train()
    if experiment.trainer.compile:
        compile_network(network, experiment.trainer.deterministic)
    optimizer = build_optimizer(
        network, hparams["optimizer"], hparams["lr"], 0.0, hparams["optimizer_options"]
    )
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    data.preprocess.to(device)
    images, targets = data.splits["train"].images.to(device), data.splits["train"].targets.to(device)
    seconds = []
    for epoch in range(arguments.epochs + 1):
        began_at = now(arguments.device)
        generator = generator_for(device, epoch)
        for places in torch.randperm(len(targets), device=device).split(data.batch_size):
            pixels = data.augment(images[places], generator)
            with torch.autocast(
                device.type, torch.bfloat16, enabled=experiment.trainer.precision == "bf16-mixed"
            ):
                loss = F.cross_entropy(network(data.preprocess.normalize(pixels)), targets[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(now(arguments.device) - began_at)
    return len(targets) / statistics.mean(seconds[1:])


def options(parser: argparse.ArgumentParser) -> None:
    tiny = "--tiny" in sys.argv
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu" if tiny else "cuda")
    parser.add_argument(
        "--cases", choices=["cuda", "cpu"], help="those of another device than the one it runs on"
    )
    parser.add_argument("--images", type=int, default=32 if tiny else None, help="in an epoch")
    parser.add_argument("--batch-size", type=int, help="in place of each case's own")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)


def main() -> None:
    given = arguments(__doc__, rounds=3, epochs=(2, 1), more=options)
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU; --device cpu tries the script without one")
    where = torch.cuda.get_device_name() if given.device == "cuda" else "the CPU"
    with workplace():
        of_device = [case for case in CASES if case.device == (given.cases or given.device)]
        for case in of_device[-1:] if given.tiny else of_device:
            rates = interleaved(
                given.rounds,
                {
                    "bare": lambda case=case: bare_loop(case, given),
                    "darkroom": lambda case=case: darkroom(case, given),
                },
            )
            what = f"Darkroom on {where}, {case.name}"
            aim = "" if case.aim is None else f" (the aim is {case.aim})"
            figure(
                f"gpu/{case.backbone}",
                ratios(rates, "darkroom", "bare"),
                "images/s",
                what,
                f"a bare loop{aim}",
            )


if __name__ == "__main__":
    main()
