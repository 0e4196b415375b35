"""A run on several devices is the run on one, and ends clearly whichever of its processes dies."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from support.training import LONG, PLAIN, assert_same_run, run_id, wait_for_epoch

from darkroom.experiments.config.experiment import Experiment, load_experiment
from darkroom.experiments.errors import RequestError
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.loop import evaluate
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare

pytestmark = pytest.mark.slow_first

TWO = ["--trainer.devices=2", "--trainer.accelerator=cpu"]
# Gradients of two halves are added in another order, 1e-7 a step, which the optimizer enlarges; a wrong share
# of images would change weights by more than 1e-3.
WEIGHTS, MEASURES = 1e-4, 1e-5
# A sequence of blocks, each gathered when it computes, and what stands before and after them.
SHARDED = {
    "trainer.strategy": "fsdp",
    "model.backbone": "vit_tiny_patch16_224",
    "model.backbone_options": "{img_size: 8, patch_size: 4, depth: 3, embed_dim: 24}",
    "model.optimizer": "sgd",
    "model.lr": "0.1",
    "model.schedule": "constant",
    "trainer.gradient_clip_norm": "1",
}


def start_two(workspace, *arguments):
    return workspace.start(*LONG, *TWO, *arguments, start_new_session=True)


def other_rank(process) -> psutil.Process:
    """The child of the server that rank 0 has started."""
    (rank,) = [child for server in psutil.Process(process.pid).children() for child in server.children()]
    return rank


@pytest.fixture(scope="module")
def uninterrupted(workspace) -> str:
    answer = workspace.run(*LONG, *TWO)
    assert answer.status == 0, answer.errors
    return run_id(answer.output)


def trained(
    folder: Path, devices: int, callbacks: Sequence[pl.Callback] = (), resumed: bool = False, **overrides: str
) -> tuple[Experiment, EpochRecorder]:
    keys = {**PLAIN, "trainer.devices": str(devices), **overrides}
    experiment = load_experiment(["digits/cnn"], keys)
    prepare(experiment)
    recorder = EpochRecorder(None, monitor=None)
    folder.mkdir(exist_ok=resumed)
    fit(experiment, recorder, folder, callbacks=callbacks, resumed=resumed)
    return experiment, recorder


@pytest.mark.parametrize(
    "keys",
    [
        {},
        pytest.param({"model.sam_rho": "0.05", "trainer.accumulate_batches": "2"}, marks=pytest.mark.slow),
        pytest.param({"model.finetuning": "{strategy: lora, lora_rank: 2}"}, marks=pytest.mark.slow),
        SHARDED,
    ],
    ids=["plain", "sharpness-aware", "lora", "sharded"],
)
def test_two_processes_train_the_weights_of_one_and_measure_the_same(keys, tmp_path):
    one, alone = trained(tmp_path / "one", 1, **keys)
    two, shared = trained(tmp_path / "two", 2, **keys)
    ours, theirs = one.model.network.state_dict(), two.model.network.state_dict()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=WEIGHTS), name
    for expected, obtained in zip(alone.history, shared.history, strict=True):
        assert len(expected) > 20
        for name in expected.keys() - {"epoch_seconds"}:
            # Two images that are as likely but for the last bit may change places.
            tolerance = 1e-4 if name.endswith(("auroc", "average_precision")) else MEASURES
            assert obtained[name] == pytest.approx(expected[name], abs=tolerance), name
    expected, obtained = one.model.predictions["val"], two.model.predictions["val"]
    assert len(expected.targets) == 139  # odd
    assert torch.equal(obtained.indices, expected.indices)
    assert torch.equal(obtained.targets, expected.targets)
    assert torch.allclose(obtained.probabilities, expected.probabilities, rtol=0, atol=MEASURES)


@pytest.mark.parametrize("keys", [{}, SHARDED], ids=["plain", "sharded"])
def test_steps_of_two_processes_that_accumulate_are_those_of_one_with_larger_batches(keys, tmp_path):
    # Of 1,286 images 6 batches of 255 are left: a step of 4 and one of 2, the last batch with 11 images.
    accumulated = {**keys, "trainer.accumulate_batches": "4"}
    large, alone = trained(tmp_path / "one", 1, **{**keys, "data.batch_size": "1020"})
    small, shared = trained(tmp_path / "two", 2, **accumulated)
    ours, theirs = large.model.network.state_dict(), small.model.network.state_dict()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=WEIGHTS), name
    # The rate has fallen by the steps that were taken: two an epoch.
    assert shared.history[-1]["lr"] == pytest.approx(alone.history[-1]["lr"], abs=1e-12)


def test_what_two_processes_measure_is_what_their_checkpoint_gives_on_one(tmp_path):
    # With batch-norm, whose running statistics differ between processes, and dropout.
    normalized = {"model.backbone_options": "{widths: [8, 8]}", "model.dropout": "0.3"}
    experiment, recorder = trained(tmp_path / "normalized", 2, **normalized)
    seen = recorder.validation(2)
    assert seen is not None
    metrics, predictions = seen
    judged = evaluate(experiment, ["val"])
    for name, value in judged.metrics.items():
        assert metrics[name] == pytest.approx(value, abs=MEASURES), name
    again = judged.predictions["val"]
    assert torch.allclose(predictions.probabilities, again.probabilities, rtol=0, atol=MEASURES)


class Shares(pl.Callback):
    """Of the network's numbers and of the optimizer's, what rank 0 holds once it has trained."""

    def on_train_epoch_end(self, trainer, pl_module):
        (optimizer,) = trainer.optimizers
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        self.whole = sum(each.numel() for each in parameters)
        self.parameters = sum(each.to_local().numel() for each in parameters)
        self.momenta = sum(each.to_local().numel() for each in momenta)


def test_a_sharded_network_lies_in_shares_and_goes_on_from_the_whole_of_its_checkpoint(tmp_path):
    shares = Shares()
    uninterrupted, _ = trained(tmp_path / "left alone", 2, [shares], **SHARDED)
    assert shares.parameters == shares.momenta < 0.52 * shares.whole
    trained(tmp_path / "in two", 2, **SHARDED, **{"trainer.max_epochs": "1"})
    checkpoint = torch.load(tmp_path / "in two" / "last.ckpt", weights_only=True)
    assert sum(each.numel() for each in checkpoint["state_dict"].values()) == shares.whole
    resumed, _ = trained(tmp_path / "in two", 2, resumed=True, **SHARDED)
    ours, expected = resumed.model.network.state_dict(), uninterrupted.model.network.state_dict()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.averaging", "{method: ema}"),
        ("trainer.compile", "true"),
        ("trainer.precision", "16-mixed"),
        ("model.sam_rho", "0.05"),
        ("model.finetuning.strategy", "linear_probe"),
        ("model.optimizer_options", "{momentum: 0}"),
        ("model.optimizer", "adafactor"),
        ("model.optimizer", "cadamw"),
    ],
)
def test_what_does_not_go_with_a_sharded_network_is_refused(key, value):
    keys = {
        "trainer.strategy": "fsdp",
        "trainer.devices": "2",
        "trainer.accelerator": "cpu",
        "model.optimizer": "momentum",
    }
    keys[key] = value
    with pytest.raises(RequestError, match=f"trainer.strategy=fsdp does not go with {key}"):
        prepare(load_experiment(["digits/cnn"], keys))


class StopAfterTheFirst(Checkpoint):
    """What a controller's verdict does, in rank 0 alone."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_all_processes_stop_after_the_epoch_for_which_the_first_is_told_to(tmp_path):
    # Rank 0 would end with an error if another one had trained on.
    _, recorder = trained(tmp_path / "told", 2, [StopAfterTheFirst()], **{"trainer.max_epochs": "9"})
    assert [row["epoch"] for row in recorder.history] == [1]


# Rank 0 as NCCL would leave it: waiting for ever, without an error, for a process that has died.
HANGING = """
import sys, time
from pathlib import Path
import psutil
import pytorch_lightning as pl
from darkroom.experiments.training.distributed import launcher
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare

class Hanging(pl.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        servers = psutil.Process().children()
        [rank] = [child for server in servers for child in server.children()]
        rank.kill()
        time.sleep(600)

if __name__ == "__main__":
    launcher.HANG_SECONDS = 1.0
    experiment = load_experiment(["digits/cnn"], {"trainer.devices": "2", "trainer.accelerator": "cpu"})
    prepare(experiment)
    fit(experiment, EpochRecorder(None, None), Path("."), callbacks=[Hanging()])
"""


@pytest.mark.slow  # gloo's processes do not hang; those below are killed at every run
def test_a_process_that_hangs_on_a_dead_one_is_ended(tmp_path):
    (tmp_path / "hanging.py").write_text(HANGING)
    done = subprocess.run(
        [sys.executable, "hanging.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "darkroom: rank 1 of 2 died (SIGKILL)"


def test_it_is_one_run_that_rank_0_alone_tells_of(uninterrupted, workspace, store):
    answer = workspace.run(*LONG, *TWO, "--trainer.max_epochs=1", "--mlflow.run_name=only one")
    assert answer.output.count("epoch 1/1") == 1
    assert answer.errors.strip() == ""
    assert store.find_run("only one").status == "FINISHED"


@pytest.mark.slow  # the next one kills one of them, at every run
def test_a_run_killed_with_all_its_processes_resumes_to_the_same_bits(uninterrupted, workspace, store):
    process = start_two(workspace)
    killed = wait_for_epoch(workspace.folder, 3, process)
    rank = other_rank(process)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs([rank], timeout=5)
    assert not alive, "a rank outlived rank 0"
    answer = workspace.run("train", "--resume", killed)
    assert answer.status == 0, answer.errors
    assert_same_run(store.find_run(uninterrupted), store.find_run(killed), store)


def test_a_rank_that_is_killed_ends_the_run_within_seconds_and_it_can_go_on(uninterrupted, workspace, store):
    process = start_two(workspace)
    broken = wait_for_epoch(workspace.folder, 3, process)
    killed_at = time.monotonic()
    other_rank(process).kill()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - killed_at < 15
    assert process.returncode == 1
    assert "rank 1 of 2 died (SIGKILL)" in errors
    assert f"darkroom train --resume {broken}" in errors
    assert "Traceback" not in errors
    assert store.find_run(broken).status == "FAILED"
    answer = workspace.run("train", "--resume", broken)
    assert answer.status == 0, answer.errors
    assert_same_run(store.find_run(uninterrupted), store.find_run(broken), store)


def test_ctrl_c_reaches_rank_0_alone_and_leaves_no_process(workspace, store):
    process = start_two(workspace)
    interrupted = wait_for_epoch(workspace.folder, 2, process)
    group = psutil.Process(process.pid).children(recursive=True)
    for each in [*group, psutil.Process(process.pid)]:  # as a terminal does
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"darkroom train --resume {interrupted}" in errors
    _, alive = psutil.wait_procs(group, timeout=5)
    assert not alive
    assert store.find_run(interrupted).status == "KILLED"


@pytest.mark.slow
def test_a_loss_that_explodes_is_told_as_on_one_device(workspace, store):
    exploding = ["--model.optimizer=sgd", "--model.lr=1e30", "--model.backbone_options.normalization=none"]
    answer = workspace.run("train", "digits/cnn", "--mlflow.run_name=exploded on two", *exploding, *TWO)
    assert answer.status == 1
    assert "the training loss became" in answer.errors
    assert "model.lr" in answer.errors
    assert "rank" not in answer.errors
    assert store.find_run("exploded on two").status == "FAILED"
