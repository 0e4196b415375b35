"""On a GPU training is what it is on the CPU: about the same numbers, repeatable, resumable.

pytest -m gpu
DARKROOM_GPU_TESTS_ON=cpu pytest -m gpu tests/integration/devices/test_gpu.py  # do the tests themselves run?
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from support.late_loader import LATE_SECONDS, LateLoader
from support.training import LONG, assert_same_run, run_id, wait_for_epoch

from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.callbacks.throughput import Throughput
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare
from darkroom.experiments.workflows.tune.batch_size_probe import attempt
from darkroom.experiments.workflows.tune.batch_size_search import Asked, search

ACCELERATOR = os.environ.get("DARKROOM_GPU_TESTS_ON", "gpu")
DEVICE = "cuda" if ACCELERATOR == "gpu" else "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="torch sees no GPU"),
]
STEADY = {  # nothing is drawn at random but weights and order, which come from the CPU
    "model.backbone_options.widths": "[8]",
    "model.dropout": "0",
    "data.augmentation.rotation": "0",  # "{}" for all of it would leave the recipe's
    "data.augmentation.zoom": "0",
    "data.augmentation.translation": "0",
    "trainer.max_epochs": "3",
}
SHAKEN = {
    "model.backbone_options.widths": "[8]",
    "model.dropout": "0.3",
    "data.augmentation": "{crop_padding: 1, rotation: 10, brightness: 0.2, erasing: 0.2}",
    "trainer.max_epochs": "2",
}


class Witness(pl.Callback):
    """Keeps what the first step got."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx
    ) -> None:
        if trainer.global_step == 0:
            self.batch = batch


def trained(overrides: dict[str, str], accelerator: str, *callbacks: pl.Callback):
    """Trains the digits; gives the history and the weights, on the CPU."""
    experiment = load_experiment(["digits/cnn"], {**overrides, "trainer.accelerator": accelerator})
    prepare(experiment)
    recorder = EpochRecorder(None, experiment.trainer.monitor)
    with tempfile.TemporaryDirectory() as folder:
        fit(experiment, recorder, Path(folder), callbacks=callbacks)
    weights = {name: value.cpu() for name, value in experiment.model.state_dict().items()}
    return recorder.history, weights


def test_it_learns_what_the_cpu_learns():
    ours, theirs = trained(STEADY, ACCELERATOR)[0], trained(STEADY, "cpu")[0]
    for here, there in zip(ours, theirs, strict=True):
        assert here["train/loss"] == pytest.approx(there["train/loss"], rel=0.02)
        assert here["val/loss"] == pytest.approx(there["val/loss"], rel=0.05)
        assert here["val/accuracy"] == pytest.approx(there["val/accuracy"], abs=0.03)


def test_images_are_augmented_on_the_device_that_trains():
    witness = Witness()
    trained(SHAKEN, ACCELERATOR, witness)
    assert witness.batch.images.device.type == DEVICE
    assert witness.batch.images.dtype == torch.float32


def test_batches_from_the_gpu_s_memory_are_those_from_the_host_s(monkeypatch):
    resident = trained(SHAKEN, ACCELERATOR)[1]
    monkeypatch.setattr("darkroom.datamodules.loader.room_on", lambda device: 0)
    copied = trained(SHAKEN, ACCELERATOR)[1]
    assert all(torch.equal(resident[name], copied[name]) for name in resident)


def test_the_same_seed_gives_the_same_bits():
    runs = [trained(SHAKEN, ACCELERATOR)[1] for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_learns_too(precision):
    if DEVICE == "cpu" and precision == "16-mixed":
        pytest.skip("for GPUs alone")
    mixed = {**STEADY, "trainer.precision": precision, "trainer.channels_last": "true"}
    ours, theirs = trained(mixed, ACCELERATOR)[0], trained(STEADY, "cpu")[0]
    assert ours[-1]["train/loss"] == pytest.approx(theirs[-1]["train/loss"], rel=0.1)


def test_a_compiled_network_learns_the_same_and_gives_the_same_bits_again():
    compiled = {**STEADY, "trainer.compile": "true", "trainer.max_epochs": "2"}
    (ours, weights), (_, again) = (trained(compiled, ACCELERATOR) for _ in range(2))
    theirs = trained({**STEADY, "trainer.max_epochs": "2"}, ACCELERATOR)[0]
    assert ours[-1]["train/loss"] == pytest.approx(theirs[-1]["train/loss"], rel=0.02)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_tf32_learns_too():
    rounded = {**STEADY, "trainer.precision": "32-true", "trainer.tf32": "true"}
    ours, theirs = trained(rounded, ACCELERATOR)[0], trained(STEADY, "cpu")[0]
    assert ours[-1]["train/loss"] == pytest.approx(theirs[-1]["train/loss"], rel=0.05)


def test_a_gpu_that_has_to_wait_for_batches_is_noticed(monkeypatch):
    monkeypatch.setattr("darkroom.datamodules.base.BatchLoader", LateLoader)
    throughput = Throughput()
    history, _ = trained(STEADY, ACCELERATOR, throughput)
    # It may still compute while the process waits, but not for most of it.
    assert 0.5 * LATE_SECONDS < history[-1]["cost/data_ms"] / 1000 < 1.5 * LATE_SECONDS
    assert history[-1]["cost/compute_ms"] > 0
    if DEVICE == "cuda":
        assert 0 < history[-1]["cost/peak_gpu_memory_mib"] < 1024


def test_the_largest_batch_that_fits_is_found_by_running_out_of_memory():
    large = {"data.image_size": "64" if DEVICE == "cuda" else "8", "model.lr": "1e-9"}
    experiment = load_experiment(["digits/cnn"], {**large, "trainer.accelerator": ACCELERATOR})
    prepare(experiment)
    if DEVICE == "cuda":
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(2 * 2**30 / whole)
    try:
        asked = Asked(experiment.data.num_train_images, configured=64)
        found = search(lambda batch_size: attempt(experiment, batch_size), asked)
        assert attempt(experiment, found.largest) is not None  # the memory of what failed is free again
        if DEVICE == "cuda":
            assert found.too_large is not None
            assert found.attempts[-1].peak_mib < 2048
    finally:
        if DEVICE == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_killed_run_ends_as_if_it_had_not_been(workspace, store):
    there = [*LONG, f"--trainer.accelerator={ACCELERATOR}"]
    whole = workspace.run(*there)
    assert whole.status == 0, whole.errors
    process = workspace.start(*there)
    killed = wait_for_epoch(workspace.folder, 4, process)
    time.sleep(0.1)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    answer = workspace.run("train", "--resume", killed)
    assert answer.status == 0, answer.errors
    assert_same_run(store.find_run(run_id(whole.output)), store.find_run(killed), store)
