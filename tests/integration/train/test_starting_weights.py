"""Runs that start from a file of weights: published checkpoints keep their accuracy."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from darkroom.experiments.config.experiment import parse_experiment
from darkroom.experiments.training.loop import evaluate
from darkroom.experiments.training.setup import prepare
from darkroom.lightning_modules.backbones.factory import build_network

SMALL = ["--model.backbone_options.widths=[8]", "--trainer.max_epochs=1"]
needs_files = pytest.mark.skipif(
    not {"DARKROOM_DATA", "DARKROOM_WEIGHTS"} <= os.environ.keys(),
    reason="DARKROOM_DATA and DARKROOM_WEIGHTS name no real images and weights",
)
RECIPE = """
name: cifar10/published
data:
  class_path: ImageFolder
  init_args: {image_size: 32, resize: squash, normalization: imagenet}
model: {class_path: ImageClassifier, init_args: {backbone: cifar_resnet}}
trainer: {precision: 32-true}
mlflow: {enabled: false}
"""


@needs_files
@pytest.mark.parametrize(
    ("depth", "file", "correct"),
    # Of 846 images: 91.73 % and 93.26 %; https://github.com/akamaster/pytorch_resnet_cifar10 has 91.73 and
    # 93.39 % on all of CIFAR-10's 10,000.
    [(20, "resnet20-12fca82f.th", 776), (56, "resnet56-4bfd9763.th", 789)],
)
def test_cifar_resnets_give_their_published_accuracy(
    depth: int, file: str, correct: int, tmp_path: Path
) -> None:
    experiment = parse_experiment(
        [RECIPE],
        {
            "data.root": str(Path(os.environ["DARKROOM_DATA"]) / "cifar10_lossless_subset"),
            "data.cache": str(tmp_path),
            "model.backbone_options.depth": str(depth),
            "model.weights": str(Path(os.environ["DARKROOM_WEIGHTS"]) / "cifar10_resnet_akamaster" / file),
        },
    )
    prepare(experiment)
    loaded = experiment.model.loaded_weights
    assert loaded is not None
    assert file.startswith(f"resnet{depth}-{loaded.sha256[:8]}")  # its author names files by their hash
    metrics = evaluate(experiment, ["test"]).metrics
    assert round(metrics["test/accuracy"] * 846) == correct


def test_a_run_says_which_weights_it_started_from_and_needs_the_file_no_more(darkroom, store, tmp_path):
    network = build_network("small_cnn", {"widths": [8]}, num_outputs=4, image_shape=(3, 8, 8))
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()[:16]

    answer = darkroom("train", "digits/cnn", f"--model.weights={file}", *SMALL)
    assert answer.status == 0, answer.errors
    assert "note: weights.pth has a head of 4 outputs; head starts anew" in answer.output
    assert "note: weights.pth has 3 input channels" in answer.output
    run_id = answer.output.rpartition("run ")[2].split()[0]
    params = store.client.get_run(run_id).data.params
    assert params["model.weights"] == str(file)
    assert params["weights_sha256"] == sha256

    file.unlink()
    assert darkroom("evaluate", run_id).status == 0
    assert darkroom("show", "digits/cnn", f"--model.weights={file}", *SMALL).status == 0


def test_a_missing_file_is_refused_before_a_run_exists(darkroom, store):
    answer = darkroom("train", "digits/cnn", "--name=no/run", "--model.weights=nowhere.pth", *SMALL)
    assert answer.status == 2
    assert "model.weights=nowhere.pth: there is no such file" in answer.errors
    assert store.client.get_experiment_by_name("no/run") is None


@pytest.mark.parametrize(
    "given", [["--model.weights=a.pth", "--model.pretrained=true"], ["--model.weights=a"]]
)
def test_weights_that_no_file_could_be_are_refused_when_parsed(given, darkroom):
    answer = darkroom("show", "digits/cnn", *given)
    assert answer.status == 2
    assert "model.weights" in answer.errors
