"""Tiny trainings as commands, and what two equal runs agree in."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import psutil
import torch

from darkroom.experiments.tracking.run import RunRecord

# 1,286 training images leave 11 for the last batch, 6 and 5. Nothing here depends on the share.
PLAIN = {
    "data.augmentation.rotation": "0",
    "data.augmentation.zoom": "0",
    "data.augmentation.translation": "0",
    "data.batch_size": "255",
    "model.backbone_options": "{widths: [8, 8], normalization: none}",
    "model.class_weights": "balanced",
    "model.l2": "1e-3",
    "trainer.accelerator": "cpu",
    "trainer.max_epochs": "2",
}
# Long enough to be killed in the middle, and with everything that has a state: momentum, a schedule,
# dropout, augmentation, early stopping.
LONG = [
    "train",
    "digits/cnn",
    "--model.backbone_options.widths=[8,8]",
    "--model.dropout=0.3",
    "--model.warmup_epochs=1",
    "--trainer.max_epochs=8",
    "--trainer.monitor=val/accuracy",
    "--trainer.early_stopping={monitor: val/loss, patience: 7}",
    "--data.batch_size=32",
]
TINY = ["--model.backbone_options.widths=[8]", "--trainer.max_epochs=3", "--trainer.monitor=val/loss"]


def run_id(output: str) -> str:
    return output.rpartition("run ")[2].split()[0]


def weights(record: RunRecord) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(record.download("checkpoints/best.ckpt"), weights_only=True)
    return checkpoint["state_dict"]


def assert_same_run(first: RunRecord, second: RunRecord, store, epochs: int = 8) -> None:
    """Weights, predictions and metrics agree to the last bit, and no epoch stands twice."""
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first.predictions("test").equals(second.predictions("test"))
    for name in ("train/loss", "train/auroc", "val/loss", "val/accuracy", "lr"):
        histories = [
            [(point.step, point.value) for point in store.client.get_metric_history(run.run_id, name)]
            for run in (first, second)
        ]
        assert histories[0] == histories[1]
        assert [step for step, _ in histories[0]] == list(range(1, epochs + 1))
    for run in (first, second):  # what it took differs, but each epoch has it once
        cost = store.client.get_metric_history(run.run_id, "cost/images_per_second")
        assert [point.step for point in cost] == list(range(1, epochs + 1))
    assert first.metrics["test/accuracy"] == second.metrics["test/accuracy"]


def wait_for_epoch(folder: Path, epoch: int, process: subprocess.Popen[str]) -> str:
    """Waits until a run of `process` has saved its checkpoint of `epoch`; returns its id."""
    started_at = psutil.Process(process.pid).create_time()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for path in folder.glob("mlruns/checkpoints/*/last.ckpt"):
            with contextlib.suppress(Exception):  # being replaced at this moment
                written_by_it = path.stat().st_mtime > started_at
                if written_by_it and torch.load(path, weights_only=True)["epoch"] + 1 >= epoch:
                    return path.parent.name
        time.sleep(0.02)
    raise AssertionError(f"no epoch {epoch} in 120 s")
