"""A run that is stopped within an epoch goes on there, and ends with the very bits of one that was not."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from support.training import LONG, assert_same_run, run_id, wait_for_epoch

from darkroom.experiments.config.experiment import Experiment, load_experiment
from darkroom.experiments.config.trainer_settings import TrainerSettings
from darkroom.experiments.errors import Terminated
from darkroom.experiments.tracking.run_lifecycle import raising_on_signals
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare

# The recipe augments. Twenty-one batches an epoch make eleven steps, the last of a single batch.
STATEFUL = {
    "model.backbone_options": "{widths: [8, 8]}",
    "model.dropout": "0.3",
    "model.mixup": "0.2",
    "model.schedule": "cosine",
    "model.warmup_epochs": "1",
    "data.batch_size": "64",
    "trainer.accelerator": "cpu",
    "trainer.max_epochs": "3",
    "trainer.monitor": "val/loss",
    "trainer.accumulate_batches": "2",
    "trainer.checkpoint_every_n_steps": "3",
}
KILLED_AFTER = 18  # steps: seven into the second epoch, and on the step of a checkpoint


class Kill(BaseException):
    """What no callback answers."""


class After(pl.Callback):
    """Does something once, so many batches after a step of the optimizer."""

    def __init__(self, step: int, action: Callable[[], None], batches: int = 0) -> None:
        self.step = step
        self.action = action
        self.left = batches

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step >= self.step:
            if self.left == 0:
                self.action()
            self.left -= 1


def kill() -> None:
    raise Kill


def train(
    folder: Path, keys: dict[str, str], callbacks: Sequence[pl.Callback] = (), resumed: bool = False
) -> tuple[Experiment, EpochRecorder]:
    experiment = load_experiment(["digits/cnn"], {**STATEFUL, **keys})
    prepare(experiment)
    recorder = EpochRecorder(None, experiment.trainer.monitor)
    folder.mkdir(exist_ok=True)
    fit(experiment, recorder, folder, resumed=resumed, callbacks=callbacks)
    return experiment, recorder


def assert_same_end(folder: Path, other: Path) -> None:
    """All weights, the optimizer's state, and what best.ckpt was chosen by, to the last bit."""
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (torch.load(each / name, weights_only=True) for each in (folder, other))
        assert ours["global_step"] == theirs["global_step"]
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        for key, weights in ours["state_dict"].items():
            assert torch.equal(weights, theirs["state_dict"][key]), key
        assert str(ours["optimizer_states"]) == str(theirs["optimizer_states"])


def assert_same_history(recorder: EpochRecorder, other: EpochRecorder) -> None:
    for ours, theirs in zip(recorder.history, other.history, strict=True):
        assert len(ours) > 20
        assert {name: ours[name] for name in ours if name != "epoch_seconds"} == {
            name: theirs[name] for name in theirs if name != "epoch_seconds"
        }


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"trainer.averaging": "{method: ema, decay: 0.9}"},
        pytest.param({"trainer.devices": "2"}, marks=pytest.mark.slow),
        {"model.finetuning": "{strategy: linear_then_full, head_epochs: 1}"},
        {"model.sam_rho": "0.05"},
        pytest.param({"model.finetuning": "{strategy: lora, lora_rank: 2}"}, marks=pytest.mark.extra("peft")),
    ],
    ids=["plain", "averaged", "two processes", "unfreezing", "sharpness-aware", "lora"],
)
def test_a_run_killed_within_an_epoch_ends_with_the_same_bits_and_metrics(keys, tmp_path):
    folder, as_killed = tmp_path / "run", tmp_path / "as killed"
    copy = After(KILLED_AFTER, lambda: shutil.copytree(folder, as_killed), batches=1)
    whole, whole_recorder = train(folder, keys, [copy])
    folder.rename(tmp_path / "whole")
    as_killed.rename(folder)
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert (saved["epoch"], saved["global_step"]) == (1, KILLED_AFTER)
    resumed, resumed_recorder = train(folder, keys, resumed=True)
    assert_same_end(tmp_path / "whole", folder)
    assert_same_history(whole_recorder, resumed_recorder)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Steps(pl.Callback):
    """The optimizer's step at each checkpoint, and whether gradients were waiting for theirs."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool]] = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.seen.append((trainer.global_step, trainer.fit_loop._should_accumulate()))


def test_checkpoints_come_every_n_steps_but_never_before_a_step_or_on_an_epochs_last(tmp_path):
    steps = Steps()
    keys = {"trainer.max_epochs": "1", "trainer.monitor": "null", "trainer.checkpoint_every_n_steps": "11"}
    train(tmp_path / "last", keys, [steps])
    assert steps.seen == [(11, False)]  # at the epoch's end, where validation is over
    steps = Steps()
    with pytest.raises(Kill):
        train(tmp_path / "early", {}, [After(6, kill)])
    with pytest.raises(Kill):
        train(tmp_path / "early", {}, [steps, After(9, kill, batches=1)], resumed=True)
    assert steps.seen == [(9, False)]  # and not at the first batch after the sixth step


def test_a_kill_within_the_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    def half(checkpoint, path):
        Path(path).write_bytes(b"half")
        kill()

    with pytest.raises(Kill):
        train(tmp_path / "killed", {}, [After(4, kill)])
    monkeypatch.setattr("lightning_fabric.plugins.io.torch_io._atomic_save", half)
    with pytest.raises(Kill):
        train(tmp_path / "killed", {}, resumed=True)
    assert torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)["global_step"] == 3


def test_no_steps_between_checkpoints_is_refused():
    with pytest.raises(ValueError, match="checkpoint_every_n_steps must be at least 1, got 0; null"):
        TrainerSettings(checkpoint_every_n_steps=0)


# Told to leave, by real signals -------------------------------------------------------------------


def test_a_run_told_to_leave_saves_where_it_stands_and_goes_on_to_the_same_bits(workspace, darkroom, store):
    shorter = [*LONG, "--trainer.max_epochs=3", "--trainer.accumulate_batches=3"]
    process = workspace.start(*shorter)
    left = wait_for_epoch(workspace.folder, 1, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert errors.strip().splitlines() == [
        f"darkroom: told to leave; everything so far is kept. Continue with: darkroom train --resume {left}"
    ]
    assert store.find_run(left).status == "KILLED"
    answer = darkroom("train", "--resume", left)
    assert answer.status == 0, answer.errors
    whole = run_id(darkroom(*shorter).output)
    assert_same_run(store.find_run(whole), store.find_run(left), store, epochs=3)


def tell(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(("batches", "saved_step"), [(0, 14), (1, 14), (16, 22)])
def test_the_checkpoint_is_of_the_next_step_or_of_the_epochs_end(number, batches, saved_step, tmp_path):
    keys = {"trainer.checkpoint_every_n_steps": "null"}
    with pytest.raises(Terminated), raising_on_signals():
        train(tmp_path / "left", keys, [After(13, tell(number), batches)])
    saved = torch.load(tmp_path / "left" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == saved_step
    assert ("train_outputs" in saved) == (saved_step != 22)
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_signal_that_the_process_was_started_to_ignore_is_ignored(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raising_on_signals():
            _, recorder = train(tmp_path / "run", {}, [After(3, tell(signal.SIGTERM))])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [row["epoch"] for row in recorder.history] == [1, 2, 3]
