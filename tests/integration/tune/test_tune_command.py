"""`darkroom tune` suggests, records what it has seen apart from trainings, and changes nothing."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from darkroom.experiments.config.experiment import load_experiment
from darkroom.lightning_modules import ImageClassifier

RECIPE = """
name: tuned/tiny
data: {class_path: Digits, init_args: {batch_size: 64}}
model:
  class_path: ImageClassifier
  init_args: {backbone: small_cnn, backbone_options: {widths: [8]}, lr: 0.01}
trainer: {max_epochs: 1, precision: 32-true, progress: false, accelerator: cpu}
mlflow: {system_metrics: false}
claim:
  metrics: {test/accuracy: {value: 0.5, tolerance: 0.1, at_least: true}}
  seeds: [0]
  source: ours
"""


@pytest.fixture
def recipe(inside) -> str:
    (inside.folder / "tuned.yaml").write_text(RECIPE)
    return "tuned.yaml"


def suggested(output: str, word: str) -> list[str]:
    """The arguments of the `darkroom WORD ...` that was printed to be used."""
    (line,) = [line for line in output.splitlines() if line.startswith(f"  darkroom {word} ")]
    return shlex.split(line)[1:]


def test_a_range_test_records_its_curve_and_prints_a_command_that_trains(recipe, inside, darkroom, store):
    before = (inside.folder / recipe).read_text()
    answer = darkroom("tune", recipe, "--steps", "120", "--model.dropout=0.1")
    assert answer.status == 0, answer.errors
    (run,) = [run for run in store.runs_of("tuned/tiny") if run.tags.get("role") == "lr-range-test"]
    assert run.status == "FINISHED"
    assert run.run_id in answer.output
    assert not any(name.startswith(("train/", "val/", "test/")) for name in run.metrics)
    points = pd.read_csv(run.download("tables/lr_range.csv"))
    assert list(points) == ["step", "lr", "loss", "smoothed"]
    assert 60 < len(points) <= 120
    assert points["lr"].iloc[0] == pytest.approx(1e-6)
    assert run.download("figures/lr_range.png").stat().st_size > 10_000
    assert run.metrics["lr_range/suggested"] == pytest.approx(run.metrics["lr_range/lowest"] / 10)
    command = suggested(answer.output, "train")
    assert command[:3] == ["train", recipe, "--model.dropout=0.1"]
    rate = float(command[3].removeprefix("--model.lr="))
    assert rate == pytest.approx(run.metrics["lr_range/suggested"], rel=0.05)
    assert 1e-4 < rate < 1e-1
    assert darkroom(*command, "--mlflow.enabled=false").status == 0
    assert (inside.folder / recipe).read_text() == before


def test_what_was_tried_is_taken_for_no_training(recipe, darkroom, store):
    # Of a constant rate without warm-up the configuration is the very one of a training.
    assert darkroom("tune", recipe, "--steps", "60").status == 0
    assert darkroom("tune", recipe, "--batch-size").status == 0
    runs = store.runs_of("tuned/tiny")
    tests = [run for run in runs if run.tags.get("role") in ("lr-range-test", "batch-size-test")]
    assert len(tests) >= 2
    assert {run.params["model.backbone"] for run in tests} == {"small_cnn"}
    answer = darkroom("reproduce", recipe, "--recorded")
    assert "reproduced" not in answer.output
    answer = darkroom("rerun", tests[0].run_id)
    assert answer.status == 2
    assert "trained no network" in answer.errors
    assert darkroom("train", recipe).status == 0
    answer = darkroom("compare", "tuned/tiny", "tuned/tiny")
    assert all(run.run_id[:8] not in answer.output + answer.errors for run in tests)


def test_the_same_command_finds_the_same_curve(recipe, darkroom, store):
    answers = [darkroom("tune", recipe, "--steps", "60") for _ in range(2)]
    first, second = (
        pd.read_csv(
            store.find_run(answer.output.rpartition("run ")[2].split()[0]).download("tables/lr_range.csv")
        )
        for answer in answers
    )
    assert first.equals(second)


def test_parts_that_training_unfreezes_later_are_tested_unfrozen(recipe, darkroom):
    answer = darkroom(
        "tune", recipe, "--steps", "60", "--model.finetuning.strategy=gradual", "--mlflow.enabled=false"
    )
    assert answer.status == 0, answer.errors
    assert "strategy=gradual ends, with all parts trained" in answer.output
    assert suggested(answer.output, "train")[2] == "--model.finetuning.strategy=gradual"


def test_told_to_leave_it_leaves_at_once_and_its_run_is_killed(recipe, inside, store):
    slow = ["--data.image_size=128", "--model.backbone_options.widths=[64,64]", "--mlflow.run_name=left"]
    process = inside.start("tune", recipe, "--steps", "100000", *slow)
    deadline = time.monotonic() + 60
    while not any(run.name == "left" for run in store.runs_of("tuned/tiny")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    time.sleep(2)  # into the steps
    process.send_signal(signal.SIGTERM)
    try:
        _, errors = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert store.find_run("left").status == "KILLED"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "3"], "--steps must be at least 50, got 3"),
        (["--lr-range", "1", "0.1"], "--lr-range must rise"),
        (["--lr-range", "0", "0.1"], "--lr-range must rise"),
        (["--memory", "4"], "--memory belongs to --batch-size"),
        (["--batch-size", "--steps", "100"], "--steps is of the learning-rate range test"),
        (["--batch-size", "--memory", "-1"], "--memory must be positive"),
        (["--trainer.devices=2"], "--trainer.devices=1"),
        (["--model.lrr=1"], "did you mean model.lr"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_is(arguments, words, recipe, darkroom, store):
    before = len(store.runs_of("tuned/tiny"))
    answer = darkroom("tune", recipe, *arguments)
    assert answer.status == 2
    assert words in answer.errors
    assert answer.errors.count("\n") == 1
    assert len(store.runs_of("tuned/tiny")) == before


# Memory that runs out ---------------------------------------------------------------------------


def fitting(monkeypatch: pytest.MonkeyPatch, training: int, evaluated: int = 10**9) -> None:
    """A device on which only so many images fit, in training and in evaluation."""
    forward = ImageClassifier.forward

    def limited(self: ImageClassifier, images: torch.Tensor) -> torch.Tensor:
        if len(images) > (training if self.training else evaluated):
            raise torch.cuda.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full."
            )
        return forward(self, images)

    monkeypatch.setattr(ImageClassifier, "forward", limited)


def test_the_batch_size_that_fits_is_found_by_running_out_of_memory(recipe, darkroom, store, monkeypatch):
    fitting(monkeypatch, training=100)
    answer = darkroom("tune", recipe, "--batch-size", "--memory", "1000", "--data.batch_size=300")
    assert answer.status == 0, answer.errors
    assert "batch size    128 does not fit" in answer.output
    assert "the largest batch that fits: 96 images (104 are too many): --data.batch_size=96" in answer.output
    assert "--data.batch_size=75 --trainer.accumulate_batches=4" in answer.output
    (run,) = [run for run in store.runs_of("tuned/tiny") if run.metrics.get("batch_size/largest") == 96]
    assert run.tags["role"] == "batch-size-test"
    table = pd.read_csv(run.download("tables/batch_size.csv"))
    assert list(table["batch_size"]) == [8, 16, 32, 64, 96]
    assert (table["images_per_second"] > 0).all()
    # Its own keys train where twice the batch does not.
    keys = ["--data.batch_size=75", "--trainer.accumulate_batches=4", "--mlflow.enabled=false"]
    assert darkroom("train", recipe, *keys).status == 0
    assert suggested(answer.output, "tune")[1] == recipe


def test_validation_has_to_fit_too(recipe, darkroom, monkeypatch):
    # It takes at least 256 images at once, and as many as training takes.
    fitting(monkeypatch, training=10**9, evaluated=130)
    answer = darkroom("tune", recipe, "--batch-size", "--memory", "1000", "--mlflow.enabled=false")
    assert answer.status == 1
    assert "not even batches of 2 images fit" in answer.errors
    assert "Traceback" not in answer.errors


def test_on_the_cpu_sizes_end_where_they_gain_nothing_or_leave_too_few_steps(recipe, darkroom):
    answer = darkroom("tune", recipe, "--batch-size", "--mlflow.enabled=false")
    assert answer.status == 0, answer.errors
    (size,) = [
        int(argument.partition("=")[2])
        for argument in suggested(answer.output, "tune")
        if argument.startswith("--data.batch_size=")
    ]
    assert 8 <= size <= 128
    assert "MiB" in answer.output


def test_an_end_that_is_set_for_training_does_not_end_the_trying(recipe, darkroom):
    ends = ["--data.val_fraction=0", "--trainer.monitor=null", "--trainer.extra={max_steps: 3}"]
    answer = darkroom("tune", recipe, "--batch-size", *ends, "--mlflow.enabled=false")
    assert answer.status == 0, answer.errors
    assert "the smallest within 5 %" in answer.output


def test_a_training_that_runs_out_of_a_gpus_memory_fails_in_one_paragraph(
    recipe, darkroom, store, monkeypatch
):
    fitting(monkeypatch, training=10)
    answer = darkroom("train", recipe, "--mlflow.run_name=too large")
    assert answer.status == 1
    assert answer.errors.count("\n") == 1
    for word in ("2.00 GiB", "data.batch_size", "trainer.accumulate_batches", "darkroom tune"):
        assert word in answer.errors
    record = store.find_run("too large")
    assert record.status == "FAILED"
    assert "OutOfMemoryError" in record.read_text("traceback.txt")
    answer = darkroom("tune", recipe, "--steps", "60", "--mlflow.run_name=too large a test")
    assert answer.status == 1
    assert "data.batch_size" in answer.errors
    assert store.find_run("too large a test").status == "FAILED"


# Less memory than one layer's output takes: 1,286 x 1,024 x 64 x 64 float32 are 20 GiB.
WITH_LITTLE_MEMORY = """
import resource, sys
from darkroom.experiments.cli.main import main
resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_training_that_is_refused_memory_by_the_system_says_the_same(recipe, inside, store):
    large = ["--data.batch_size=1286", "--data.image_size=64", "--model.backbone_options.widths=[1024]"]
    done = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY, "train", recipe, *large, "--mlflow.run_name=refused"],
        cwd=inside.folder, env=inside.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "data.batch_size" in done.stderr
    assert "Traceback" not in done.stderr
    assert store.find_run("refused").status == "FAILED"


def test_a_suggested_rate_is_one_that_the_configuration_takes(recipe, darkroom):
    answer = darkroom("tune", recipe, "--steps", "60", "--mlflow.enabled=false")
    _, source, *keys = suggested(answer.output, "train")
    overrides = dict(key.removeprefix("--").split("=", 1) for key in keys)
    assert load_experiment([source], overrides).model.hparams["lr"] == float(overrides["model.lr"])
