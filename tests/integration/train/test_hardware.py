"""What is left open is set by hardware and network, recorded as it was, and never moves what is pinned."""

from __future__ import annotations

import inspect
import tempfile
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch._dynamo.exc import TorchDynamoException

from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.config.hardware_defaults import settled
from darkroom.experiments.config.trainer_settings import NAMED_OTHERWISE, SET_ALWAYS, TrainerSettings
from darkroom.experiments.recipes import find_recipe, recipe_names
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare
from darkroom.experiments.training.trainer import build_trainer
from darkroom.lightning_modules.backbones.factory import build_network


@pytest.fixture
def processor(monkeypatch):
    """A machine without a GPU, whose processor has bf16 instructions or not."""

    def become(has_bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)

    return become


@pytest.fixture
def gpu(monkeypatch):
    def become(*capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return become


def knobs(backbone, **settings):
    network = build_network(backbone, {}, num_outputs=3, image_shape=(3, 32, 32))
    result = settled(TrainerSettings(**settings), network)
    return result.precision, result.channels_last


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("small_cnn", ("bf16-mixed", True)),
        ("resnet10t", ("bf16-mixed", True)),
        ("mobilenetv3_small_050", ("32-true", True)),  # depthwise convolutions
        ("dense", ("32-true", False)),
    ],
)
def test_a_processor_with_bf16_uses_it_for_networks_that_gain(processor, backbone, expected):
    processor(has_bf16=True)
    assert knobs(backbone) == expected


def test_any_other_processor_computes_as_it_always_did(processor):
    processor(has_bf16=False)
    assert knobs("small_cnn") == ("32-true", False)


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), "bf16-mixed"), ((7, 5), "32-true")])
def test_a_gpu_uses_bf16_from_ampere_on(gpu, capability, expected):
    gpu(*capability)
    assert knobs("resnet10t") == (expected, expected == "bf16-mixed")
    assert knobs("resnet10t", accelerator="cpu")[0] in ("32-true", "bf16-mixed")


def test_what_is_pinned_stays(processor):
    processor(has_bf16=True)
    assert knobs("small_cnn", precision="32-true") == ("32-true", True)
    assert knobs("small_cnn", channels_last=False) == ("bf16-mixed", False)


@pytest.mark.parametrize(
    ("precision", "tf32", "expected"),
    [("auto", None, True), ("16-mixed", None, True), ("32-true", None, False), ("32-true", True, True)],
)
def test_tf32_goes_with_mixed_precision(gpu, precision, tf32, expected):
    gpu(9, 0)
    network = build_network("small_cnn", {}, num_outputs=3, image_shape=(3, 32, 32))
    assert settled(TrainerSettings(precision=precision, tf32=tf32), network).tf32 is expected


def test_tf32_is_of_new_gpus_alone(gpu, processor):
    network = build_network("small_cnn", {}, num_outputs=3, image_shape=(3, 32, 32))
    gpu(7, 5)
    assert settled(TrainerSettings(precision="16-mixed"), network).tf32 is False
    processor(has_bf16=True)
    assert settled(TrainerSettings(), network).tf32 is False


@pytest.mark.parametrize("tf32", [True, False])
def test_the_process_multiplies_as_the_trainer_is_told(tf32):
    build_trainer(TrainerSettings(precision="32-true", tf32=tf32, accelerator="cpu"), [])
    try:
        assert (torch.get_float32_matmul_precision() == "high") is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
    finally:
        build_trainer(TrainerSettings(precision="32-true", accelerator="cpu"), [])


def test_all_arguments_of_lightnings_trainer_that_no_key_sets_can_be_given() -> None:
    arguments = inspect.signature(pl.Trainer.__init__).parameters.values()
    ours = {*NAMED_OTHERWISE, *SET_ALWAYS}
    extra = {each.name: each.default for each in arguments if each.name not in {*ours, "self"}}
    assert {"plugins", "strategy", "max_steps", "benchmark"} <= extra.keys()
    settings = TrainerSettings(precision="32-true", accelerator="cpu", extra=extra | {"max_steps": 7})
    assert build_trainer(settings, []).max_steps == 7


def test_a_compiled_network_learns_the_same(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # quick
    keys = {"model.backbone_options.widths": "[8]", "trainer.max_epochs": "2", "model.dropout": "0"}
    histories = []
    for compiled in ("true", "false"):
        experiment = load_experiment(["digits/cnn"], {**keys, "trainer.compile": compiled})
        prepare(experiment)
        recorder = EpochRecorder(None, experiment.trainer.monitor)
        with tempfile.TemporaryDirectory() as folder:
            fit(experiment, recorder, Path(folder))
        assert (experiment.model.network._compiled_call_impl is not None) is (compiled == "true")
        histories.append([row["val/loss"] for row in recorder.history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def test_a_compiler_that_is_missing_is_said(darkroom, store, monkeypatch):
    def missing(*arguments, **options):
        raise TorchDynamoException("No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr("torch.nn.Module.compile", missing)
    keys = ["--trainer.compile=true", "--trainer.max_epochs=1", "--mlflow.run_name=uncompiled"]
    answer = darkroom("train", "digits/cnn", *keys)
    assert answer.status == 1
    assert "No working C++ compiler found. Without it (trainer.compile=false)" in answer.errors
    assert store.find_run("uncompiled").status == "FAILED"


def test_a_run_records_what_was_taken_and_show_says_it(darkroom, store):
    keys = ["--trainer.precision=auto", "--trainer.channels_last=null", "--trainer.max_epochs=1"]
    answer = darkroom("train", "digits/cnn", *keys, "--mlflow.run_name=settled")
    assert answer.status == 0, answer.errors
    run = store.find_run("settled")
    taken = "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"
    assert run.params["trainer.precision"] == taken
    recorded = yaml.safe_load(run.read_text("config.yaml"))["trainer"]
    assert recorded["precision"] == taken
    assert recorded["channels_last"] is (taken == "bf16-mixed")
    shown = darkroom("show", "digits/cnn", *keys).output
    assert f"precision (on this machine)     │ {taken}" in shown
    assert "precision: auto" in shown


def test_every_recipe_that_was_recorded_pins_both():
    for name in recipe_names():
        trainer = yaml.safe_load(find_recipe(name).read_text())["trainer"]
        assert {"precision", "channels_last"} <= set(trainer), name
