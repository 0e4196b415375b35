"""The training loop: Darkroom with all of its record on, a bare PyTorch loop, and the usual stack.

Interleaved rounds with the same network, batch size, precision, augmentation, optimizer and thread count, on
images of Fashion-MNIST's shape (from DARKROOM_DATA where it is set, else random pixels, which take as long).

    python tests/benchmarks/training_loop.py [--rounds 5] [--images 12800]
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchmetrics
import torchvision
from bench import arguments, figure, interleaved, ratios, workplace, write_idx
from torch.utils.data import DataLoader, Dataset

from darkroom.datamodules.seeding import generator_for
from darkroom.datamodules.sources.mnist import FashionMNIST
from darkroom.experiments.config.experiment import Experiment, load_experiment
from darkroom.experiments.tracking.run_lifecycle import working_folder
from darkroom.experiments.tracking.store import open_store
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder, ProgressLine
from darkroom.experiments.training.run import fit, start_record
from darkroom.experiments.training.setup import prepare
from darkroom.lightning_modules.backbones.factory import build_network
from darkroom.lightning_modules.optimization.optimizers import build_optimizer, build_schedule

BATCH_SIZE = 128


def load(root: Path, epochs: int) -> Experiment:
    return load_experiment(
        ["fashion_mnist/cnn"],
        {"data.root": str(root), "trainer.max_epochs": str(epochs), "data.batch_size": str(BATCH_SIZE)},
    )


def darkroom(root: Path, epochs: int) -> float:
    """Seconds of an epoch with MLflow, every metric, progress and checkpoints; the first is warm-up."""
    experiment = load(root, epochs + 1)
    prepare(experiment)
    record = start_record(experiment, open_store())
    with working_folder(record) as folder:
        recorder = EpochRecorder(record, experiment.trainer.monitor)
        clock = EpochClock()
        fit(experiment, recorder, folder, callbacks=[ProgressLine(), clock])
    assert record is not None
    record.end("FINISHED")
    return clock.seconds_per_epoch()


class EpochClock(pl.callbacks.Checkpoint):
    """Whole epochs, from the start of one to the start of the next: validation and record included."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.starts.append(time.perf_counter())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.starts.append(time.perf_counter())

    def seconds_per_epoch(self) -> float:
        return (self.starts[-1] - self.starts[1]) / (len(self.starts) - 2)


def bare_loop(root: Path, epochs: int) -> float:
    """The same tensors, augmentation, network, optimizer, schedule and validation, and nothing else."""
    experiment = load(root, epochs + 1)
    prepare(experiment)
    data, hparams = experiment.data, experiment.model.hparams
    network = experiment.model.network
    optimizer = build_optimizer(
        network,
        hparams["optimizer"],
        hparams["lr"],
        hparams["weight_decay"],
        hparams["optimizer_options"] or {},
    )
    loader, val_loader = data.train_dataloader(), data.val_dataloader()
    schedule = build_schedule(
        optimizer, hparams["schedule"], max_epochs=epochs + 1, warmup_epochs=hparams["warmup_epochs"],
        steps_per_epoch=len(loader),
    )  # fmt: skip
    step, starts = 0, []
    for _ in range(epochs + 1):
        starts.append(time.perf_counter())
        network.train()
        for batch in loader:
            pixels = data.augment(batch.images, generator_for("cpu", batch.seed))
            logits = network(data.preprocess.normalize(pixels))
            loss = F.cross_entropy(logits, batch.targets, label_smoothing=hparams["label_smoothing"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if schedule is not None:
                schedule.step_update(step)
        network.eval()
        correct = 0
        with torch.no_grad():
            for batch in val_loader:
                correct += int((network(data.preprocess(batch.images)).argmax(1) == batch.targets).sum())
    starts.append(time.perf_counter())
    return (starts[-1] - starts[1]) / epochs


class PerSample(Dataset):
    """torchvision's data set, whose transforms run on one image at a time."""

    def __init__(self, data: FashionMNIST, split: str, train: bool) -> None:
        store = data.splits[split]
        self.images, self.targets = store.images, store.targets
        to_tensor = [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize((0.286,), (0.353,))]
        augment = [torchvision.transforms.RandomHorizontalFlip()]
        if data.augmentation.crop_padding:
            augment.append(torchvision.transforms.RandomCrop(28, padding=data.augmentation.crop_padding))
        self.transform = torchvision.transforms.Compose([*(augment if train else []), *to_tensor])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = torchvision.transforms.functional.to_pil_image(self.images[index])
        return self.transform(picture), int(self.targets[index])


class UsualModule(pl.LightningModule):
    """As tutorials write it: `self.log` and torchmetrics at each step."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.options = dict(experiment.model.hparams)
        self.network = build_network(
            self.options["backbone"],
            self.options["backbone_options"] or {},
            num_outputs=10,
            image_shape=(1, 28, 28),
        )
        if experiment.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=10)
        self.f1 = torchmetrics.F1Score(task="multiclass", num_classes=10, average="macro")
        self.val_accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=10)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, targets = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.options["label_smoothing"])
        self.log("train_loss", loss, prog_bar=True)
        self.accuracy(logits, targets)
        self.f1(logits, targets)
        self.log("train_accuracy", self.accuracy, prog_bar=True)
        self.log("train_f1", self.f1)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        images, targets = batch
        logits = self.network(images)
        self.val_accuracy(logits, targets)
        self.log("val_loss", F.cross_entropy(logits, targets))
        self.log("val_accuracy", self.val_accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(
            self.network, self.options["optimizer"], self.options["lr"], self.options["weight_decay"], {}
        )


def usual_stack(root: Path, epochs: int, workers: int) -> float:
    """Lightning as it is mostly used: DataLoader, per-sample transforms, MLFlowLogger."""
    experiment = load(root, epochs + 1)
    prepare(experiment)
    clock = EpochClock()
    trainer = pl.Trainer(
        max_epochs=epochs + 1, accelerator="cpu", enable_model_summary=False, num_sanity_val_steps=0,
        logger=pl.loggers.MLFlowLogger("usual", tracking_uri=os.environ["MLFLOW_TRACKING_URI"]),
        callbacks=[clock], default_root_dir=root,
    )  # fmt: skip
    loaders = [
        DataLoader(
            PerSample(experiment.data, split, split == "train"), BATCH_SIZE, shuffle=split == "train",
            num_workers=workers, persistent_workers=workers > 0,
        )
        for split in ("train", "val")
    ]  # fmt: skip
    trainer.fit(UsualModule(experiment), *loaders)
    return clock.seconds_per_epoch()


def main() -> None:
    given = arguments(__doc__, rounds=5, images=(12_800, 150), epochs=(2, 1))
    with workplace() as root:
        write_idx(root, given.images, test_images=min(2000, given.images))
        rates = interleaved(
            given.rounds,
            {
                name: lambda contestant=contestant, workers=workers: (
                    1 / contestant(root, given.epochs, *workers)
                )
                for name, contestant, workers in (
                    ("bare", bare_loop, ()),
                    ("darkroom", darkroom, ()),
                    ("usual", usual_stack, (0,)),
                    ("usual_2_workers", usual_stack, (2,)),
                )
            },
        )
    for other, told in (
        ("bare", "a bare loop"),
        ("usual", "Lightning, DataLoader and self.log"),
        ("usual_2_workers", "the same with two workers"),
    ):
        what = f"Darkroom with its record, {torch.get_num_threads()} threads"
        figure(f"training_loop/{other}", ratios(rates, "darkroom", other), "epochs/s", what, told)


if __name__ == "__main__":
    main()
