"""What a run costs is measured right, and a run that waits for its data is told what to do."""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytorch_lightning as pl
import yaml
from PIL import Image
from support.late_loader import LATE_SECONDS, LateLoader

from darkroom.datamodules import Digits
from darkroom.datamodules.loader import BatchLoader
from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.tracking.store import system_metrics
from darkroom.experiments.training.callbacks.throughput import Throughput
from darkroom.experiments.training.setup import prepare
from darkroom.experiments.training.trainer import build_trainer

IMAGES, STEPS, BATCH_SIZE = 1293, 21, 64  # digits' training images


class Watch(pl.Callback):
    """Seconds of training batches, from the start of each epoch to the end of its last one."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began_at = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        self.ended_at = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(self.ended_at - self.began_at)


@pytest.fixture
def cost(tmp_path, monkeypatch) -> Callable[..., tuple[dict[str, float], float, Throughput]]:
    """Trains on digits; gives the last epoch's costs, its seconds by another watch, and the callback."""
    monkeypatch.chdir(tmp_path)

    def measure(train_loader: type[BatchLoader] = BatchLoader, val_loader: type[BatchLoader] = BatchLoader):
        small = {"model.backbone_options.widths": "[8]", "trainer.max_epochs": "2"}
        experiment = load_experiment(["digits/cnn"], small)
        prepare(experiment)
        data, model = experiment.data, experiment.model
        loaders = [
            train_loader(data.splits["train"], BATCH_SIZE, shuffle=True),
            val_loader(data.splits["val"], BATCH_SIZE),
        ]
        monkeypatch.setattr(data, "train_dataloader", lambda: loaders[0])
        monkeypatch.setattr(data, "val_dataloader", lambda: loaders[1])
        throughput, watch = Throughput(), Watch()
        trainer = build_trainer(experiment.trainer, [throughput, watch])
        trainer.fit(model, datamodule=data)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        costs = {name[5:]: value for name, value in values.items() if name.startswith("cost/")}
        return costs, watch.seconds[-1], throughput

    return measure


def test_waiting_for_batches_and_working_on_them_are_told_apart(cost):
    prompt, seconds, _ = cost()
    assert prompt["images_per_second"] == pytest.approx(IMAGES / seconds, rel=0.05)
    assert prompt["data_ms"] + prompt["compute_ms"] == pytest.approx(1000 * seconds / STEPS, rel=0.05)
    late, seconds, throughput = cost(LateLoader)
    late_ms = 1000 * LATE_SECONDS
    assert late_ms < late["data_ms"] < 1.5 * late_ms + prompt["data_ms"]
    assert late["data_ms"] + late["compute_ms"] == pytest.approx(1000 * seconds / STEPS, rel=0.05)
    assert throughput.waited_seconds > 2 * STEPS * LATE_SECONDS
    assert late["cpu_cores"] < prompt["cpu_cores"]


def test_validation_is_no_part_of_the_training_rate(cost):
    slow_to_validate, seconds, throughput = cost(val_loader=LateLoader)
    assert slow_to_validate["images_per_second"] == pytest.approx(IMAGES / seconds, rel=0.05)
    validated = 2 * math.ceil(139 / BATCH_SIZE)  # batches in two epochs, each of which comes late
    assert throughput.waited_seconds < validated * LATE_SECONDS


def test_peak_memory_is_what_was_held_at_most(cost):
    # The kernel's own, which has it back at once; freed tensors' memory may stay with the process.
    with mmap.mmap(-1, 400 * 2**20) as held:
        for _ in range(400):
            held.write(bytes(2**20))
        with_it = psutil.Process().memory_info().rss / 2**20
    assert cost()[0]["peak_memory_mib"] > with_it - 1
    assert psutil.Process().memory_info().rss / 2**20 < with_it - 100


def test_peaks_and_energy_go_on_in_a_resumed_run():
    resumed = Throughput()
    resumed.load_state_dict({"peak_memory_mib": 1e9, "cpu_joules": 5.0})
    assert resumed.state_dict() == {"peak_memory_mib": 1e9, "cpu_joules": 5.0}
    resumed._keep_peak("peak_memory_mib", 100.0)
    assert resumed.state_dict()["peak_memory_mib"] == 1e9


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A recipe of large pictures for a network that is done with them at once."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(60):
        path = folder / "images" / ("even", "odd")[number % 2] / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (500, 500, 3), dtype=np.uint8)).save(path)
    recipe = {
        "name": "photographs/dense",
        "data": {
            "class_path": "ImageFolder",
            "init_args": {
                "root": str(folder / "images"),
                "image_size": 16,
                "batch_size": 8,
                "val_fraction": 0.3,
            },
        },
        "model": {
            "class_path": "ImageClassifier",
            "init_args": {"backbone": "dense", "backbone_options": {"hidden_sizes": [8]}},
        },
        "trainer": {"max_epochs": 1},
        "mlflow": {"enabled": False},
    }
    path = folder / "photographs.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_run_that_waits_for_files_is_told_so_once_and_which_key_helps(darkroom, photographs, tmp_path):
    answer = darkroom("train", str(photographs), f"--data.cache={tmp_path}", "--data.cache_gib=0")
    assert answer.status == 0, answer.errors
    (hint,) = [line for line in answer.output.splitlines() if line.startswith("hint")]
    assert "waited for data" in hint
    assert "data.cache_gib" in hint


def test_a_run_on_data_in_memory_is_told_nothing(darkroom):
    answer = darkroom("train", "digits/cnn", "--trainer.max_epochs=1", "--mlflow.enabled=false")
    assert answer.status == 0, answer.errors
    assert "hint" not in answer.output


def test_ten_percent_of_waiting_is_the_limit(darkroom, photographs, tmp_path):
    experiment = load_experiment([str(photographs)], {"data.cache": str(tmp_path)})
    prepare(experiment)
    throughput = Throughput()
    assert throughput.hint(experiment.data) is None  # nothing was trained
    throughput.trained_seconds, throughput.waited_seconds = 100.0, 9.9
    assert throughput.hint(experiment.data) is None
    throughput.waited_seconds = 43.2
    hint = throughput.hint(experiment.data)
    assert hint is not None
    assert "43%" in hint
    assert "data.image_size" in hint
    assert "data.cache_gib" not in hint  # they are decoded
    digits = Digits()
    digits.setup()
    assert throughput.hint(digits) is None  # of what lies in memory nothing comes faster


@pytest.fixture
def watched_often(monkeypatch):
    """Samples every twentieth of a second in place of every ten seconds."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")


@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_records_how_busy_the_machine_is_unless_it_is_told_not_to(
    wanted, darkroom, store, watched_often
):
    setting = f"--mlflow.system_metrics={str(wanted).lower()}"
    name = f"watched {wanted}"
    answer = darkroom("train", "digits/cnn", "--trainer.max_epochs=2", setting, f"--mlflow.run_name={name}")
    assert answer.status == 0, answer.errors
    names = {name for name in store.find_run(name).metrics if name.startswith("system/")}
    assert ("system/cpu_utilization_percentage" in names) == wanted
    assert bool(names) == wanted


def test_watching_goes_on_where_it_stopped_and_ends_with_the_block(store, watched_often):
    record = store.start_run("watching", "watched twice", {})
    histories = []
    for _ in range(2):
        with system_metrics(record):
            time.sleep(0.5)
        histories.append(store.client.get_metric_history(record.run_id, "system/cpu_utilization_percentage"))
    time.sleep(0.2)
    at_last = store.client.get_metric_history(record.run_id, "system/cpu_utilization_percentage")
    assert 0 < len(histories[0]) < len(histories[1]) == len(at_last)
    assert [point.step for point in at_last] == list(range(len(at_last)))
