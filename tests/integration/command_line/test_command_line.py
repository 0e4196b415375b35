"""The command line answers fast, and refuses what is wrong in one paragraph, before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.experiments.cli.parser import COMMANDS

WITHOUT_TORCH = """
import contextlib, io, sys
from darkroom.experiments.cli.main import main
for line in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            status = main(line.split())
        except SystemExit as stop:
            status = stop.code
    assert not status, line
    assert len(said.getvalue()) > 100, line
    heavy = {"torch", "mlflow", "pytorch_lightning", "optuna", "jsonargparse"} & set(sys.modules)
    assert not heavy, f"{line} imports {heavy}"
"""


def test_help_and_list_import_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    lines = ["--help", "list", *(f"{name} --help" for name in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *lines], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_help_names_every_command_with_its_summary(darkroom):
    output = darkroom("--help").output
    for name, command in COMMANDS.items():
        assert f"  {name}" in output
        assert command.summary in output


def test_no_command_at_all_shows_the_help(darkroom):
    assert "commands:" in darkroom().output


def test_list_shows_every_recipe_with_its_claim(darkroom):
    output = darkroom("list").output
    for name in ("digits/cnn", "fashion_mnist/article_cnn", "fashion_mnist/cnn", "mnist/lenet5"):
        assert name in output
    assert "0.907" in output


# Each with what the message must name: the key, and what would have been right.
MISTAKES = [
    (["train", "digits/cn"], ["digits/cn", "digits/cnn"]),
    (["train", "nowhere.yaml"], ["nowhere.yaml", "file"]),
    (["train"], ["recipe"]),
    (["train", "digits/cnn", "--model.lrr=0.1"], ["model.lrr", "model.lr"]),
    (["train", "digits/cnn", "--model.lr=fast"], ["model.lr", "float", "fast"]),
    (["train", "digits/cnn", "--model.lr"], ["--model.lr", "value"]),
    (["train", "digits/cnn", "--trainer.max_epoch=3"], ["trainer.max_epoch", "trainer.max_epochs"]),
    (["train", "digits/cnn", "--trainer.early_stopping.patiance=3"], ["early_stopping.patience"]),
    (["train", "digits/cnn", "--data.augmentation.zom=0.1"], ["data.augmentation.zoom"]),
    (["train", "digits/cnn", "--data.augmentation.zoom=7"], ["augmentation.zoom", "[0, 0.9]", "7"]),
    (["train", "digits/cnn", "--data.val_fraction=1.5"], ["data.val_fraction", "[0, 1)", "1.5", "0.1"]),
    (["train", "digits/cnn", "--data.batch_size=0"], ["data.batch_size", "at least 1"]),
    (["train", "digits/cnn", "--data=Digit"], ["Digit", "Digits"]),
    (["train", "digits/cnn", "--model.backbone=resnet19"], ["resnet19", "resnet18"]),
    (["train", "digits/cnn", "--model.backbone_options.width=[8]"], ["width", "widths"]),
    (["train", "digits/cnn", "--model.backbone_options.widths=[a]"], ["widths", "int"]),
    (["train", "digits/cnn", "--model.backbone_options.kernel_size=4"], ["kernel_size", "odd"]),
    (["train", "digits/cnn", "--model.backbone_options.widths=[4,4,4,4]"], ["too small", "stages"]),
    (["train", "digits/cnn", "--model.optimizer=adamm"], ["adamm", "adam"]),
    (["train", "digits/cnn", "--model.optimizer_options={momentom: 0.5}"], ["model.optimizer", "momentom"]),
    (["train", "digits/cnn", "--model.schedule=cosin"], ["model.schedule", "cosine", "cosin"]),
    (["train", "digits/cnn", "--trainer.monitor=test/accuracy"], ["test/accuracy", "val/accuracy"]),
    (["train", "digits/cnn", "--trainer.monitor=val/acuracy"], ["acuracy", "accuracy"]),
    (["train", "digits/cnn", "--trainer.devices=0"], ["trainer.devices", "at least 1", "0"]),
    (
        ["sweep", "digits/cnn", "--trainer.devices=999", "--trainer.accelerator=cpu"],
        ["trainer.devices", "999", "cores"],
    ),
    (["train", "digits/cnn", "--trainer.extra={max_epochs: 3}"], ["trainer.extra", "trainer.max_epochs"]),
    (
        ["train", "digits/cnn", "--trainer.extra={callbacks: []}"],
        ["trainer.extra", "callbacks", "leave it out"],
    ),
    (["train", "digits/cnn", "--trainer.extra={max_step: 3}"], ["trainer.extra", "max_step", "max_steps"]),
    (["train", "digits/cnn", "--trainer.extra={profiler: foo}"], ["trainer.extra", "foo", "simple"]),
    (["train", "digits/cnn", "--trainer.accelerator=foo"], ["trainer.accelerator", "foo", "cpu"]),
    (["train", "digits/cnn", "--trainer.accelerator=tpu"], ["trainer.accelerator=tpu", "cpu", "auto"]),
    (
        ["train", "digits/cnn", "--trainer.accelerator=cpu", "--trainer.devices=99999"],
        ["trainer.devices", "at most", "cores", "99999"],
    ),
    (["train", "digits/cnn", "--trainer.gradient_clip_norm=0"], ["gradient_clip_norm", "positive", "0"]),
    (["train", "digits/cnn", "--trainer.gradient_clip_norm=.nan"], ["gradient_clip_norm", "finite", "nan"]),
    (["train", "digits/cnn", "--trainer.early_stopping={min_delta: .inf}"], ["min_delta", "finite", "inf"]),
    (["train", "digits/cnn", "--model.finetuning.head_lr_factor=.nan"], ["head_lr_factor", "finite", "nan"]),
    (["train", "digits/cnn", "--model.optimizer_options={betas: [0.9, .nan]}"], ["betas", "finite", "nan"]),
    (["train", "digits/cnn", "--model.optimizer=adahessian"], ["model.optimizer=adahessian", "adamw"]),
    (["train", "digits/cnn", "--model.backbone=resnet10t.foo"], ["resnet10t", "foo", "c3_in1k"]),
    (
        ["train", "digits/cnn", "--model.finetuning={strategy: linear_then_full, head_epochs: 30}"],
        ["model.finetuning.head_epochs", "trainer.max_epochs=30", "linear_probe"],
    ),
    (
        ["train", "digits/cnn", "--model.finetuning={strategy: gradual, unfreeze_every: 50}"],
        ["model.finetuning.unfreeze_every", "trainer.max_epochs=30", "50"],
    ),
    (
        ["train", "digits/cnn", "--model.warmup_epochs=50", "--model.schedule=cosine"],
        ["model.warmup_epochs", "trainer.max_epochs=30", "50"],
    ),
    (["train", "digits/cnn", "--sweep.metric=test/accuracy"], ["sweep.metric", "val/accuracy"]),
    (["sweep", "digits/cnn", "--trials=0"], ["--trials", "at least 1"]),
    (["sweep", "mnist/lenet5"], ["sweep.space"]),
    (["sweep", "digits/cnn", "--data.val_fraction=0"], ["data.val_fraction", "above 0"]),
    (["evaluate", "no-such-run"], ["no-such-run", "darkroom ui"]),
    (["slices", "no-such-run"], ["no-such-run", "darkroom ui"]),
    (["slices", "run", "--out=slices.tex"], [".md or .csv", "slices.tex"]),
    (["slices", "run", "--model.lr=1"], ["model.lr", "data.root"]),
    (["train", "--resume", "no-such-run"], ["no-such-run"]),
    (["train", "mnist/lenet5", "--data.root=empty", "--data.download=false"], ["empty", "idx", "data.root"]),
]


@pytest.mark.parametrize(("arguments", "named"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_a_mistake_is_one_paragraph_that_names_what_would_be_right(arguments, named, darkroom, store):
    before = count_runs(store)
    answer = darkroom(*arguments)
    assert answer.status == 2
    assert answer.errors.startswith("darkroom: ")
    assert len(answer.errors.strip().splitlines()) == 1
    assert "Traceback" not in answer.errors
    for word in named:
        assert word in answer.errors
    assert count_runs(store) == before


@pytest.mark.parametrize("arguments", [["tran"], ["evaluate"], ["evaluate", "run", "--split=all"]])
def test_a_mistaken_command_is_refused_with_its_usage(arguments, darkroom):
    answer = darkroom(*arguments)
    assert answer.status == 2
    assert "usage: darkroom" in answer.errors


def test_a_mistake_in_the_search_space_is_found_before_the_search(darkroom, inside):
    space = inside.folder / "space.yaml"
    for text, named in [
        ("model.lrr: {low: 1, high: 2}", ["sweep.space", "model.lrr", "model.lr"]),
        ("model.optimizer: {choices: [adam, adamm]}", ["sweep.space", "model.optimizer", "adamm"]),
        ("model.dropout: {low: 0.0, high: 1.5}", ["sweep.space", "model.dropout", "1.5"]),
        ("model.lr: {low: 0.0, high: 1.0, log: true}", ["logarithmic", "above 0"]),
        ("model.lr: {low: 1.0, high: 0.1}", ["low", "high"]),
        ("model.lr: {low: 1.0, hihg: 0.1}", ["hihg"]),
        ("model.backbone_options.width: {choices: [[8]]}", ["width", "widths"]),
    ]:
        space.write_text(f"sweep: {{space: {{{text}}}}}")
        answer = darkroom("sweep", "digits/cnn", str(space))
        assert answer.status == 2, text
        assert all(word in answer.errors for word in named), answer.errors
        assert "Traceback" not in answer.errors


def count_runs(store) -> int:
    client = store.client
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(experiments))
