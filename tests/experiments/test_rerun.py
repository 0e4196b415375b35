"""`rerun` makes a recorded run again, says before what is not as it was, and after where it diverged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_train import TINY, run_id

from experiments.rerun import first_difference, weight_difference

ROOT = Path(__file__).parents[2]


def test_on_the_same_machine_a_rerun_is_bit_identical_and_one_more_run(trained, workspace, store):
    answer = workspace.run("rerun", trained[:12])
    assert answer.status == 0, answer.errors
    assert "packages, hardware, code and data are those of the original" in answer.output
    assert "bit-identical" in answer.output
    again = store.find_run(answer.output.split()[-5 + answer.output.split()[-5:].index("run") + 1])
    assert again.run_id != trained
    assert again.tags["rerun_of"] == trained
    assert again.tags["rerun_verdict"] == "bit-identical"
    assert again.metrics["test/log_loss"] == store.find_run(trained).metrics["test/log_loss"]


def test_a_sweeps_trial_is_held_against_its_metrics_alone(darkroom, store):
    trial = store.find_run(run_id(darkroom("train", "digits/cnn", *TINY).output))
    trial.set_tags({"role": "trial", "study": "digits"})
    answer = darkroom("rerun", trial.run_id)
    assert answer.status == 0, answer.errors
    assert "no weights: a sweep keeps none of its trials; every metric is the same" in answer.output


def test_another_thread_count_is_named_before_the_run_begins(trained, darkroom):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        answer = darkroom("rerun", trained[:12])
    finally:
        torch.set_num_threads(before)
    assert answer.status == 0, answer.errors
    told, _, rest = answer.output.partition("epoch 1/")
    assert "torch_threads was 1, is 2 (OMP_NUM_THREADS=1 gives as many)" in told
    assert rest


def test_changed_images_are_named_and_the_first_epoch_they_change(fresh_workspace, open_store_at):
    random = np.random.default_rng(0)
    files = [fresh_workspace.folder / "images" / name / f"{n}.png" for name in "ab" for n in range(20)]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    recipe = fresh_workspace.folder / "noise.yaml"
    recipe.write_text(
        """
name: noise
data:
  class_path: ImageFolder
  init_args: {root: images, cache: cache, image_size: 8, resize: squash, test_fraction: 0.2}
model:
  class_path: ImageClassifier
  init_args: {backbone: small_cnn, backbone_options: {widths: [4]}}
trainer: {max_epochs: 2}
"""
    )
    answer = fresh_workspace.run("train", "noise.yaml")
    assert answer.status == 0, answer.errors
    run_id = open_store_at(fresh_workspace).find_run("seed=0").run_id
    for path in files:
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    answer = fresh_workspace.run("rerun", run_id)
    assert answer.status == 0, answer.errors
    told, _, rest = answer.output.partition("epoch 1/")
    assert "changed: data: the train images are others" in told
    assert "split" not in told  # ids are the same
    assert "diverged at epoch 1" in rest
    files[0].rename(files[0].with_name("another.png"))
    told = fresh_workspace.run("rerun", run_id).output
    assert "1 are new, 1 are gone" in told
    answer = fresh_workspace.run("rerun", run_id, "--at-commit")
    assert "changed: data: the train images are others" in answer.output
    assert "1 are new, 1 are gone" in answer.output
    assert (answer.status, "recorded no commit" in answer.errors) == (2, True)  # the folder is no checkout


@pytest.mark.slow  # two minutes of fresh processes, in a clone
def test_the_recorded_code_is_run_where_it_is_asked_for(tmp_path, fresh_workspace, open_store_at):
    if not (ROOT / ".git").exists():
        pytest.skip("needs the project's git checkout")
    code = fresh_workspace.folder / "code"
    subprocess.run(["git", "clone", "--quiet", f"file://{ROOT}", code], check=True)
    dense = code / "lightning_modules" / "networks" / "dense.py"
    present = dense.read_text()
    dense.write_text(present.replace("(256, 128)", "(8,)"))  # recorded as an uncommitted change
    assert dense.read_text() != present
    inside = type(fresh_workspace)(code)
    keys = ["--model.backbone=dense", "--model.backbone_options=null", "--trainer.max_epochs=2"]
    answer = inside.run("train", "digits/cnn", *keys)
    assert answer.status == 0, answer.errors
    dense.write_text(present)
    run_id = open_store_at(inside).find_run("backbone=dense backbone_options=null max_epochs=2").run_id
    answer = inside.run("rerun", run_id)
    assert "changed: code: the uncommitted changes are others" in answer.output
    assert "weights of the chosen checkpoints have other shapes" in answer.output
    answer = inside.run("rerun", run_id, "--at-commit")
    assert answer.status == 0, answer.errors
    assert "bit-identical" in answer.output
    listed = subprocess.run(["git", "worktree", "list"], cwd=code, capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nothing"], "no run in"), (["{run}", "--model.lr=3"], "model.lr can't be changed")],
)
def test_what_is_no_rerun_is_refused(arguments, said, trained, darkroom):
    answer = darkroom("rerun", *(argument.format(run=trained) for argument in arguments))
    assert answer.status == 2
    assert said in answer.errors


def test_the_first_difference_is_found_by_epoch_and_then_by_size():
    before = {1: {"val/loss": 1.0, "val/ece": 0.1}, 2: {"val/loss": 1.0}}
    now = {1: {"val/loss": 1.01, "val/ece": 0.101 + 0.05, "epoch_seconds": 9.0}, 2: {"val/loss": 3.0}}
    epoch, metric, by = first_difference(before, now)
    assert (epoch, metric) == (1, "val/ece")
    assert by == pytest.approx(0.051)
    same = {1: {"train/loss": float("nan"), "epoch_seconds": 1.0}}
    assert first_difference(same, {1: {"train/loss": float("nan")}}) == (None, "", 0.0)


def test_weights_of_other_names_are_infinitely_far_apart():
    assert weight_difference({}, {"w": np.zeros(1)}) == float("inf")  # type: ignore[dict-item]
