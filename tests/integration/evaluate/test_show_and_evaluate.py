"""`show` needs no data; `evaluate` gives what was recorded."""

from __future__ import annotations

import re

import pytest
import torch

from darkroom.datamodules import Digits
from darkroom.experiments.cli.show import activation_bytes, trained_share
from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.optimization.finetuning import FineTuning


def test_show_prints_configuration_derived_values_and_every_layer(darkroom):
    answer = darkroom("show", "fashion_mnist/article_cnn", "--model.lr=0.25", "--data.root=nowhere")
    assert answer.status == 0, answer.errors
    assert "lr: 0.25" in answer.output
    assert re.search(r"steps_per_epoch.*1,875", answer.output)
    assert re.search(r"num_parameters.*390,410", answer.output)
    counts = {}
    for line in answer.output.splitlines():
        if found := re.search(r"│ (\S+)\s+│ (\w+)\s+│ (\S+)\s+│\s+([\d,]+) │", line):
            counts[found[1]] = (found[2], found[3], int(found[4].replace(",", "")))
    convolutions = [row for row in counts.values() if row[0].startswith("Conv2d")]
    assert [row[1] for row in convolutions] == ["32x14x14", "64x7x7", "128x2x2", "256x1x1"]
    assert [row[2] for row in convolutions] == [320, 18_496, 73_856, 295_168]
    assert sum(row[2] for row in counts.values()) == 390_410


def test_show_help_lists_every_key_with_its_docstring(darkroom):
    answer = darkroom("show", "digits/cnn", "--help")
    assert answer.status == 0
    for key in ("--data.batch_size", "--model.lr", "--trainer.max_epochs", "--mlflow.enabled"):
        assert key in answer.output
    assert "Peak learning rate" in answer.output


def test_show_refuses_a_network_that_its_images_do_not_fit(darkroom):
    answer = darkroom("show", "digits/cnn", "--model.backbone_options.widths=[4,4,4,4]")
    assert answer.status == 2
    assert "1x8x8" in answer.errors


@pytest.mark.parametrize(("split", "stage"), [("test", "test"), ("val", "best")])
def test_evaluate_gives_the_recorded_metrics_again(split, stage, trained, trained_run, darkroom):
    answer = darkroom("evaluate", trained[:10], f"--split={split}")
    assert answer.status == 0, answer.errors
    rows = re.findall(rf"│ {split}/(\w+)\s+│\s+([\d.]+) │\s+([\d.]+) │\s+(\S+) │", answer.output)
    assert len(rows) == 11
    for name, recorded, now, difference in rows:
        assert float(recorded) == pytest.approx(trained_run.metrics[f"{stage}/{name}"], abs=1e-6)
        assert recorded == now
        assert abs(float(difference)) < 1e-6


def test_evaluate_takes_other_data_of_the_same_classes_with_the_networks_own_statistics(
    trained, darkroom, tmp_path
):
    data = Digits()
    data.setup()
    # MNIST has the same class names, in files of another place and size; brighter by far.
    images = torch.zeros(20, 28, 28, dtype=torch.uint8) + 255
    labels = torch.arange(20, dtype=torch.uint8) % 10
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", labels)
    answer = darkroom("evaluate", trained, "--data=MNIST", f"--data.root={tmp_path}", "--data.image_size=8")
    assert answer.status == 0, answer.errors
    # Twenty equal images get one answer, right for two of them.
    assert re.search(r"test/accuracy .* 0\.100000", answer.output)


def test_evaluate_refuses_other_classes_and_other_networks(trained, darkroom):
    other = darkroom("evaluate", trained, "--data=FashionMNIST", "--data.root=nowhere")
    assert other.status == 2
    assert "T-shirt/top" in other.errors
    changed = darkroom("evaluate", trained, "--model.dropout=0.5")
    assert changed.status == 2
    assert "model.dropout" in changed.errors


def test_evaluate_refuses_images_of_a_size_that_the_network_cant_take(trained, darkroom):
    answer = darkroom("evaluate", trained, "--data.image_size=16")
    assert answer.status == 2
    assert "trained on images of 1x8x8, and its weights do not fit one for 1x16x16" in answer.errors


def test_a_run_is_found_by_its_own_signs_alone(trained, darkroom):
    for query in ("%", f"{trained[:2]}_{trained[3:8]}"):
        answer = darkroom("evaluate", query)
        assert (answer.status, "has the id or name" in answer.errors) == (2, True)


def test_show_tells_of_a_network_that_feeds_parameters_to_layers(darkroom):
    cait = ["--model.backbone=cait_xxs24_224", "--model.backbone_options=null", "--data.image_size=32"]
    answer = darkroom("show", "digits/cnn", *cait)
    assert answer.status == 0, answer.errors
    assert "multiply_adds_per_image" in answer.output


def test_show_tells_why_this_machine_cant_train_it(darkroom):
    answer = darkroom("show", "digits/cnn", "--trainer.accelerator=tpu")
    assert answer.status == 0, answer.errors
    assert "trainer.accelerator=tpu is not available" in answer.output


def write_idx(path, array: torch.Tensor) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.numpy().tobytes())


def test_show_counts_what_is_trained_and_what_training_keeps_in_memory() -> None:
    def built(**finetuning) -> ImageClassifier:
        options = {"hidden_sizes": [8]}
        model = ImageClassifier("dense", backbone_options=options, finetuning=FineTuning(**finetuning))
        model.build(3, (1, 4, 4))
        return model

    assert trained_share(built()) == "all"
    assert trained_share(built(strategy="linear_probe")) == "27 (17 %)"  # of 16 * 8 + 8 + 8 * 3 + 3
    assert trained_share(built(strategy="linear_then_full")) == "27 (17 %), in the end all"
    assert activation_bytes(built()) == 4 * (16 + 8)  # the inputs of both layers
    assert activation_bytes(built(strategy="linear_probe")) == 4 * 8
