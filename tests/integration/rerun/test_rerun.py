"""`rerun` makes a recorded run again, says before what is not as it was, and after where it diverged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.training import TINY, run_id

from darkroom.experiments.tracking.provenance import source_digest, source_files
from darkroom.experiments.tracking.provenance_diff import code_changes, recorded_threads
from darkroom.experiments.workflows import rerun
from darkroom.experiments.workflows.rerun import first_difference, weight_difference

pytestmark = pytest.mark.slow_first

ROOT = Path(__file__).parents[3]


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


def test_the_recorded_number_of_threads_is_restored(trained, workspace):
    # In a fresh process: one that is forked from the tests' own takes no number from the environment.
    answer = subprocess.run(
        [sys.executable, "-m", "darkroom", "rerun", trained[:12]],
        cwd=workspace.folder,
        env=workspace.environment(OMP_NUM_THREADS="2", MKL_NUM_THREADS="2"),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    told, _, rest = answer.stdout.partition("epoch 1/")
    assert f"threads: 1, as run {trained[:8]} recorded; this process would use 2" in told
    assert "packages, hardware, code and data are those of the original" in told
    assert "bit-identical" in rest


def test_the_number_of_threads_is_the_recorded_one_inside_alone(trained_run, capsys):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with recorded_threads(trained_run):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with recorded_threads(trained_run):
        assert torch.get_num_threads() == 1
    assert capsys.readouterr().out.count("threads: 1") == 1


def test_edited_sources_are_named_and_a_record_without_sources_is_not_called_the_same(
    trained_run, monkeypatch
):
    assert code_changes(trained_run) == []
    edited = source_files(ROOT).replace(hashlib.sha256(Path(rerun.__file__).read_bytes()).hexdigest(), "0")
    monkeypatch.setattr("darkroom.experiments.tracking.provenance_diff.code_sources", lambda: edited)
    assert (
        "1 of Darkroom's files is not as recorded (experiments/workflows/rerun.py)"
        in code_changes(trained_run)[0]
    )
    older = SimpleNamespace(tags={})
    assert "recorded no sources" in code_changes(older)[0]


SHOW_CODE = """
import json
from darkroom.experiments.tracking import provenance
print(json.dumps({
    "root": str(provenance.PACKAGE_ROOT),
    "code": provenance.code_git_state(),
    "workspace": provenance.workspace_git_state(),
    "digest": provenance.source_digest(provenance.code_sources()),
}))
"""


def git(folder, *arguments):
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def shown_code(folder, packages):
    done = subprocess.run(
        [sys.executable, "-P", "-c", SHOW_CODE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(packages), "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = json.loads(done.stdout)
    assert shown["root"] == str(packages / "darkroom")
    return shown


def test_the_code_is_that_of_the_package_and_not_that_of_the_working_folder(tmp_path):
    installed = tmp_path / "project" / "site-packages"
    shutil.copytree(ROOT / "src" / "darkroom", installed / "darkroom", ignore=shutil.ignore_patterns("*.pyc"))
    project = installed.parent
    outside = shown_code(project, installed)
    assert (outside["code"], outside["workspace"]) == (None, None)
    assert outside["digest"] == source_digest(source_files(ROOT))

    (project / ".gitignore").write_text("site-packages\n")
    git(project, "init", "--quiet")
    git(project, "add", ".gitignore")
    git(project, "commit", "--quiet", "--message=a project")
    within = shown_code(project, installed)  # a virtual environment in the folder of another repository
    assert within["code"] is None
    assert within["workspace"]["commit"] == git(project, "rev-parse", "HEAD")

    (installed / "darkroom" / "experiments" / "new.py").write_text("")
    assert shown_code(project, installed)["digest"] != outside["digest"]

    git(installed, "init", "--quiet")
    git(installed, "add", ".")
    git(installed, "commit", "--quiet", "--message=Darkroom")
    checkout = shown_code(project, installed)
    assert checkout["code"]["commit"] == git(installed, "rev-parse", "HEAD")
    assert checkout["workspace"]["commit"] == within["workspace"]["commit"]
    assert shown_code(installed, installed)["workspace"] is None


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
    store = open_store_at(fresh_workspace)
    run_id = store.find_run("seed=0").run_id
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
    if "git_commit" in store.run(run_id).tags:
        store.client.delete_tag(run_id, "git_commit")  # as if Darkroom had run outside a checkout
    answer = fresh_workspace.run("rerun", run_id, "--at-commit")
    assert "changed: data: the train images are others" in answer.output
    assert "1 are new, 1 are gone" in answer.output
    assert (answer.status, "recorded no commit" in answer.errors) == (2, True)


DENSE = Path("lightning_modules/networks/dense.py")
KEYS = ["--model.backbone=dense", "--model.backbone_options=null", "--trainer.max_epochs=2"]
NAME = "backbone=dense backbone_options=null max_epochs=2"


@pytest.fixture
def code(fresh_workspace) -> Path:
    """A clone of the project, in which code can be changed."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the project's git checkout")
    clone = fresh_workspace.folder / "code"
    subprocess.run(["git", "clone", "--quiet", f"file://{ROOT}", clone], check=True)
    return clone


def narrowed(code: Path) -> str:
    """Makes the default network narrower, as a change that is not committed; returns what stood there."""
    present = (code / DENSE).read_text()
    changed = present.replace("(256, 128)", "(8,)")
    assert changed != present
    (code / DENSE).write_text(changed)
    return present


@pytest.mark.slow  # minutes of fresh processes, in a clone
def test_the_recorded_code_is_run_where_it_is_asked_for(code, fresh_workspace, open_store_at):
    present = narrowed(code)
    inside = type(fresh_workspace)(code)
    environment = {"PYTHONPATH": str(code / "src")}
    answer = inside.run("train", "digits/cnn", *KEYS, **environment)
    assert answer.status == 0, answer.errors
    (code / DENSE).write_text(present)
    run_id = open_store_at(inside).find_run(NAME).run_id
    answer = inside.run("rerun", run_id, **environment)
    assert f"not as recorded ({DENSE})" in answer.output
    assert "weights of the chosen checkpoints have other shapes" in answer.output
    answer = inside.run("rerun", run_id, "--at-commit", **environment)
    assert answer.status == 0, answer.errors
    assert "bit-identical" in answer.output
    listed = subprocess.run(["git", "worktree", "list"], cwd=code, capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1


@pytest.mark.slow  # as the one above
def test_code_of_before_the_packages_became_one_is_run_too(code, fresh_workspace, open_store_at):
    moved = git(code, "log", "--diff-filter=D", "--format=%H", "-1", "--", "experiments/__main__.py")
    git(code, "checkout", "--quiet", f"{moved}^")
    narrowed(code)
    inside = type(fresh_workspace)(code)
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "train", "digits/cnn", *KEYS],
        cwd=code,
        env=inside.environment(PYTHONPATH=str(code)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    git(code, "checkout", "--quiet", "--force", "-")
    run_id = open_store_at(inside).find_run(NAME).run_id
    answer = inside.run("rerun", run_id, "--at-commit", PYTHONPATH=str(code / "src"))
    assert answer.status == 0, answer.errors
    assert "bit-identical" in answer.output


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
