"""A run fine-tuned with LoRA is a run like any other: shown, recorded, judged again, made again, used."""

from __future__ import annotations

import sys

import mlflow
import numpy as np
import pytest
from support.training import run_id

from darkroom.datamodules import Digits

VIT = [
    "digits/cnn",
    "--model.backbone=vit_tiny_patch16_224",
    "--model.backbone_options={depth: 1, embed_dim: 24, num_heads: 2, patch_size: 4}",
    "--model.finetuning={strategy: lora, lora_rank: 2}",
    "--trainer.max_epochs=2",
]


@pytest.mark.extra("peft")
def test_show_prints_the_trained_share_and_no_layer_that_computes_nothing(darkroom):
    answer = darkroom("show", *VIT)
    assert answer.status == 0, answer.errors
    # Ranks of 2 beside qkv, proj, fc1 and fc2 of width 24; the head of 24 features.
    added = 2 * ((24 + 72) + (24 + 24) + (24 + 96) + (96 + 24))
    assert f"│ {added + 250:,} (" in answer.output
    assert "lora_A.default" in answer.output
    assert "ParameterDict" not in answer.output


@pytest.mark.extra("peft")
def test_its_record_alone_gives_the_same_metrics_the_same_bits_and_a_model_without_peft(
    darkroom, store, monkeypatch
):
    answer = darkroom("train", *VIT, "--mlflow.run_name=adapted")
    assert answer.status == 0, answer.errors
    run = store.find_run(run_id(answer.output))
    judged = darkroom("evaluate", run.run_id)
    assert judged.status == 0, judged.errors
    assert judged.output.count("+0.0e+00") > 5
    again = darkroom("rerun", run.run_id)
    assert again.status == 0, again.errors
    assert "bit-identical" in again.output

    data = Digits()
    data.setup()
    images, ids = data.splits["test"].images.numpy(), list(data.splits["test"].ids)
    with monkeypatch.context() as without:
        for name in [each for each in sys.modules if each.partition(".")[0] == "peft"]:
            without.setitem(sys.modules, name, None)
        said = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model").predict(images)
    recorded = run.predictions("test").set_index("id").loc[ids].filter(like="prob_").to_numpy()
    np.testing.assert_allclose(said, recorded, atol=1e-5)

    other = run_id(darkroom("train", *VIT, "--seed=1", "--trainer.max_epochs=1").output)
    soup = darkroom("ensemble", run.run_id, other, "--method=soup")
    assert soup.status == 2
    assert "the product of LoRA's mean matrices is not" in soup.errors


@pytest.mark.parametrize("command", ["show", "train"])
def test_without_peft_it_is_refused_before_a_run_exists(command, darkroom, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # as if it were not installed
    answer = darkroom(command, *VIT, "--name=no/peft")
    assert answer.status == 2
    assert answer.errors.splitlines() == [
        "darkroom: model.finetuning.strategy=lora needs peft, which is not installed: "
        'pip install ".[lora]" in the checkout of darkroom, or with the path of its wheel in place of the dot'
    ]
    assert store.client.get_experiment_by_name("no/peft") is None
