"""What is judged and kept are averages of the weights, those of the articles, also when a run is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from support.training import LONG, assert_same_run, run_id, wait_for_epoch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from darkroom.experiments.config.experiment import Experiment, load_experiment
from darkroom.experiments.config.trainer_settings import Averaging
from darkroom.experiments.errors import RequestError
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.callbacks.weight_averaging import (
    WeightAveraging,
    remeasure,
    training_images,
)
from darkroom.experiments.training.loop import evaluate
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare

SMALL = {
    "model.backbone_options": "{widths: [8, 8]}",
    "model.dropout": "0.3",
    "trainer.accelerator": "cpu",
    "trainer.max_epochs": "4",
    "data.batch_size": "257",  # of 1,286 training images a single one is left, which joins the last batch
    "model.lr": "0.01",
}
EMA = {"trainer.averaging.method": "ema", "trainer.averaging.decay": "0.9"}
SWA = {"trainer.averaging.method": "swa", "trainer.averaging.start_epoch": "1"}
State = dict[str, torch.Tensor]


class Watch(Checkpoint):
    """The weights as they were trained, after each step and each epoch. Stands where checkpoints do."""

    def __init__(self) -> None:
        self.steps: list[State] = []
        self.epochs: list[State] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        self.steps.append(copied(module.network))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.epochs.append(copied(module.network))


def copied(network: nn.Module) -> State:
    return {name: value.clone() for name, value in network.state_dict().items()}


def fitted(
    folder: Path, callbacks: Sequence[pl.Callback] = (), **overrides: str
) -> tuple[Experiment, EpochRecorder]:
    experiment = load_experiment(["digits/cnn"], {**SMALL, **overrides})
    prepare(experiment)
    recorder = EpochRecorder(None, experiment.trainer.monitor)
    folder.mkdir(exist_ok=True)
    fit(experiment, recorder, folder, callbacks=callbacks)
    return experiment, recorder


def assert_close(ours: State, theirs: State, names: Sequence[str] | None = None, atol: float = 1e-6) -> None:
    for name in names or ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=atol, rtol=0, msg=name)


def weights_of(experiment: Experiment) -> list[str]:
    return [name for name, _ in experiment.model.network.named_parameters()]


# The averages -----------------------------------------------------------------------------------


def test_ema_is_what_a_loop_over_the_steps_gives(tmp_path):
    watch = Watch()
    experiment, _ = fitted(tmp_path, [watch], **EMA, **{"trainer.averaging.start_epoch": "1"})
    average: State = {}
    steps_per_epoch = len(watch.steps) // 4
    for count, state in enumerate(watch.steps[steps_per_epoch:]):
        decay = min(0.9, (1 + count) / (10 + count))
        for name, value in state.items():
            before = average.get(name, value)
            floating = value.is_floating_point()
            average[name] = decay * before + (1 - decay) * value if floating else value
    assert_close(experiment.model.network.state_dict(), average)


def test_after_many_steps_ema_is_torchs(tmp_path):
    callback = WeightAveraging(Averaging(decay=0.5))
    network = nn.Linear(3, 2)
    ours = AveragedModel(network, multi_avg_fn=callback._move)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    callback._average = ours
    for average in (ours, theirs):
        average.n_averaged.fill_(100)
    for _ in range(5):
        nn.init.normal_(network.weight)
        ours.update_parameters(network)
        theirs.update_parameters(network)
    torch.testing.assert_close(ours.module.weight, theirs.module.weight)


def test_swa_is_the_mean_of_the_epochs_ends_with_statistics_of_its_own(tmp_path):
    watch = Watch()
    experiment, _ = fitted(tmp_path, [watch], **SWA)
    network, data = experiment.model.network, experiment.data
    names = weights_of(experiment)
    mean = {name: torch.stack([state[name] for state in watch.epochs[1:]]).mean(0) for name in names}
    assert_close(network.state_dict(), mean, names)

    obtained = copied(network)
    images = data.splits["train"].images[data.train_dataloader()._order(0)]
    batches = [data.preprocess(batch) for batch in images.split([257, 257, 257, 257, 258])]
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    update_bn(batches, network)
    assert_close(obtained, network.state_dict(), atol=1e-4)  # float32 sums over batches, in another order
    averaged = {name: torch.stack([state[name] for state in watch.epochs[1:]]) for name in obtained}
    moved = [name for name in obtained if name.endswith("running_var")]
    assert all(not torch.allclose(obtained[name], averaged[name].mean(0), rtol=0.01) for name in moved)


def test_statistics_that_stand_still_are_kept_and_counts_are_not_averaged():
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    network.register_buffer("places", torch.tensor([7, 3]))
    network[0].eval()
    callback = WeightAveraging(Averaging(decay=0.999))
    callback._average = average = AveragedModel(network, multi_avg_fn=callback._move, use_buffers=True)
    for _ in range(50):
        average.update_parameters(network)
    assert average.module.places.tolist() == [7, 3]
    remeasure(average.module, network, [torch.randn(8, 2, 3, 3) + 5])
    assert average.module[0].running_mean.tolist() == [0, 0]
    assert (average.module[2].running_mean != 0).all()
    assert average.module[2].momentum == network[2].momentum


def test_accumulated_batches_make_one_step_of_ema_each(tmp_path):
    watch = Watch()
    overrides = {"trainer.accumulate_batches": "2", "trainer.max_epochs": "1", "data.batch_size": "300"}
    experiment, _ = fitted(tmp_path, [watch], **EMA, **overrides)
    assert len(watch.steps) == 5  # and three steps of the optimizer: the last batch stands alone
    name = weights_of(experiment)[0]
    first, second, third = (watch.steps[batch][name] for batch in (1, 3, 4))
    average = (2 / 11) * first + (9 / 11) * second
    average = (3 / 12) * average + (9 / 12) * third
    torch.testing.assert_close(experiment.model.network.state_dict()[name], average)


# Judged and saved as such -----------------------------------------------------------------------


@pytest.mark.parametrize("averaging", [EMA, SWA], ids=["ema", "swa"])
@pytest.mark.parametrize("monitor", ["null", "val/loss"])
def test_validation_and_the_chosen_checkpoint_are_of_the_average(tmp_path, averaging, monitor):
    watch = Watch()
    experiment, recorder = fitted(tmp_path, [watch], **averaging, **{"trainer.monitor": monitor})
    best = 4
    if monitor != "null":
        best = 1 + int(np.argmin([row["val/loss"] for row in recorder.history]))
    seen = recorder.validation(best)
    assert seen is not None
    for name, value in evaluate(experiment, ["val"]).metrics.items():
        assert seen[0][name] == pytest.approx(value, abs=1e-6), name
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert_close(last["trained_weights"], watch.epochs[-1], atol=0)
    name = f"network.{weights_of(experiment)[0]}"
    assert not torch.equal(last["state_dict"][name], last["trained_weights"][name.removeprefix("network.")])


def test_before_averaging_starts_the_weights_are_as_they_are_trained(tmp_path):
    three = {"trainer.max_epochs": "3"}
    _, recorder = fitted(tmp_path / "late", **three, **{"trainer.averaging.start_epoch": "2"})
    _, expected = fitted(tmp_path / "plain", **three)
    for epoch in (0, 1):
        assert recorder.history[epoch]["val/loss"] == expected.history[epoch]["val/loss"]
    assert recorder.history[2]["train/loss"] == expected.history[2]["train/loss"]
    assert recorder.history[2]["val/loss"] != expected.history[2]["val/loss"]


def test_the_logged_model_and_the_tested_one_are_the_average(darkroom, store, tmp_path):
    small = [f"--{key}={value}" for key, value in {**SMALL, **SWA}.items()]
    answer = darkroom("train", "digits/cnn", *small)
    assert answer.status == 0, answer.errors
    record = store.find_run(run_id(answer.output))
    checkpoint = torch.load(record.download("checkpoints/best.ckpt"), weights_only=True)
    (logged,) = store.client.search_logged_models([store.client.get_run(record.run_id).info.experiment_id],
        filter_string=f"source_run_id='{record.run_id}'")  # fmt: skip
    network = mlflow.pytorch.load_model(logged.model_uri).state_dict()
    for name, value in checkpoint["state_dict"].items():
        assert torch.equal(network[name], value), name
    again = darkroom("evaluate", record.run_id)
    assert again.status == 0, again.errors
    assert "+0.0e+00" in again.output


# Killed, shared, refused ------------------------------------------------------------------------


@pytest.mark.parametrize("averaging", [EMA, SWA], ids=["ema", "swa"])
def test_a_run_resumed_in_mid_epoch_ends_with_the_same_average(tmp_path, averaging):
    whole, _ = fitted(tmp_path / "whole", [Saved(tmp_path / "saved.ckpt", at_step=9)], **averaging)
    resumed = load_experiment(["digits/cnn"], {**SMALL, **averaging})
    prepare(resumed)
    folder = tmp_path / "resumed"
    folder.mkdir()
    (tmp_path / "saved.ckpt").rename(folder / "last.ckpt")
    fit(resumed, EpochRecorder(None, None), folder, resumed=True)
    assert_close(resumed.model.network.state_dict(), whole.model.network.state_dict(), atol=0)


class Saved(Checkpoint):
    def __init__(self, path: Path, at_step: int) -> None:
        self.path = path
        self.at_step = at_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.at_step:
            trainer.save_checkpoint(self.path)


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(workspace, store):
    averaged = [*LONG, "--trainer.averaging={method: swa, start_epoch: 2}"]
    whole = run_id(workspace.run(*averaged).output)
    process = workspace.start(*averaged)
    killed = wait_for_epoch(workspace.folder, 4, process)
    time.sleep(0.1)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    answer = workspace.run("train", "--resume", killed)
    assert answer.status == 0, answer.errors
    assert_same_run(store.find_run(whole), store.find_run(killed), store)


def test_two_processes_average_what_one_does(tmp_path):
    # Nothing here depends on the share but rounding.
    plain = {
        **EMA,
        "model.dropout": "0",
        "model.backbone_options": "{widths: [8, 8], normalization: none}",
        "data.augmentation.rotation": "0",
        "data.augmentation.zoom": "0",
        "data.augmentation.translation": "0",
        "trainer.max_epochs": "2",
    }
    one, alone = fitted(tmp_path / "one", **plain)
    two, shared = fitted(tmp_path / "two", **plain, **{"trainer.devices": "2"})
    # Gradients of two halves are summed in another order, and the optimizer enlarges the difference.
    assert_close(two.model.network.state_dict(), one.model.network.state_dict(), atol=1e-4)
    for ours, theirs in zip(shared.history, alone.history, strict=True):
        assert ours["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-5)


def test_with_batch_norm_two_processes_keep_the_average_that_they_judged(tmp_path):
    experiment, recorder = fitted(tmp_path, **SWA, **{"trainer.devices": "2"})
    seen = recorder.validation(4)
    assert seen is not None
    for name, value in evaluate(experiment, ["val"]).metrics.items():
        assert seen[0][name] == pytest.approx(value, abs=1e-6), name
    norms = [module for module in experiment.model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    network = experiment.model.network
    before = copied(network)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.datamodule = experiment.data  # type: ignore[attr-defined]
    experiment.data.trainer = None
    remeasure(network, network.train(), training_images(experiment.data, experiment.model.device))
    assert norms
    assert_close(network.state_dict(), before, atol=1e-4)  # float32 sums of two shares, in another order


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("decay", "1", r"trainer.averaging.*decay must lie in \(0, 1\), got 1"),
        ("start_epoch", "-1", "start_epoch must be at least 0, got -1"),
        ("start_epoch", "30", "start_epoch must lie below trainer.max_epochs=30, got 30"),
        ("metod", "ema", "unknown key trainer.averaging.metod; did you mean trainer.averaging.method"),
        ("method", "mean", "trainer.averaging.*method"),
    ],
)
def test_settings_out_of_range_are_refused(key, value, message):
    with pytest.raises(RequestError, match=message):
        load_experiment(["digits/cnn"], {f"trainer.averaging.{key}": value})
