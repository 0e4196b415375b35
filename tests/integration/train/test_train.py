"""Training gives the same bits again, survives being killed, and says clearly why it failed."""

from __future__ import annotations

import math
import resource
import signal
import time

import numpy as np
import pytest
import torch
from support.training import LONG, TINY, assert_same_run, run_id, wait_for_epoch, weights

from darkroom.datamodules import Digits
from darkroom.experiments.config.trainer_settings import TrainerSettings
from darkroom.experiments.training.checks import check_takes_extra
from darkroom.experiments.training.restore import restore
from darkroom.lightning_modules import ImageClassifier

pytestmark = pytest.mark.slow_first


@pytest.fixture(scope="module")
def uninterrupted(workspace) -> str:
    answer = workspace.run(*LONG)
    assert answer.status == 0, answer.errors
    return run_id(answer.output)


def test_the_same_configuration_gives_the_same_bits_in_a_fresh_process(uninterrupted, workspace, store):
    output, _ = workspace.start(*LONG).communicate()
    assert_same_run(store.find_run(uninterrupted), store.find_run(run_id(output)), store)


def test_another_seed_gives_other_weights_on_the_same_split(trained_run, darkroom, store):
    answer = darkroom("train", "digits/cnn", "--seed=1", *TINY)
    other = store.find_run(run_id(answer.output))
    assert other.read_text("data/facts.json") == trained_run.read_text("data/facts.json")
    ours, theirs = weights(trained_run), weights(other)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_killed_in_mid_epoch_ends_as_if_it_had_not_been(uninterrupted, workspace, store):
    process = workspace.start(*LONG)
    killed = wait_for_epoch(workspace.folder, 4, process)
    time.sleep(0.1)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    record = store.find_run(killed)
    assert record.status == "RUNNING"
    assert 4 <= record.last_epoch() < 8
    answer = workspace.run("train", "--resume", killed[:12])
    assert answer.status == 0, answer.errors
    assert "epoch 1/8" not in answer.output
    assert run_id(answer.output) == killed
    assert_same_run(store.find_run(uninterrupted), store.find_run(killed), store)
    assert store.find_run(killed).status == "FINISHED"
    again = workspace.run("train", "--resume", killed)
    assert again.status == 2
    assert "nothing to resume" in again.errors


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(uninterrupted, workspace, store):
    process = workspace.start(*LONG)
    interrupted = wait_for_epoch(workspace.folder, 3, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"darkroom train --resume {interrupted}" in errors
    assert "Traceback" not in errors
    assert store.find_run(interrupted).status == "KILLED"
    answer = workspace.run("train", "--resume", interrupted)
    assert answer.status == 0, answer.errors
    assert_same_run(store.find_run(uninterrupted), store.find_run(interrupted), store)


def test_a_sweeps_trial_is_left_to_its_sweep(darkroom, store):
    trial = store.start_run("digits/cnn", "lr=0.1", {"role": "trial", "study": "digits"})
    trial.end("KILLED")
    answer = darkroom("train", "--resume", trial.run_id)
    assert answer.status == 2
    assert "is a trial of the sweep digits, which alone goes on with it" in answer.errors


@pytest.mark.slow
def test_a_run_that_stopped_early_does_not_train_on_when_resumed(workspace, store):
    stopping = [*LONG, "--trainer.max_epochs=40", "--trainer.early_stopping={patience: 2}", "--model.lr=0.05"]
    whole = store.find_run(run_id(workspace.run(*stopping).output))
    last = whole.last_epoch()
    assert last < 40
    process = workspace.start(*stopping)
    killed = wait_for_epoch(workspace.folder, last, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    answer = workspace.run("train", "--resume", killed)
    assert answer.status == 0, answer.errors
    resumed = store.find_run(killed)
    assert resumed.last_epoch() == last
    assert resumed.predictions("test").equals(whole.predictions("test"))


def test_without_validation_images_the_last_checkpoint_is_tested(darkroom, store):
    stopping = ["--trainer.early_stopping.patience=1", "--trainer.max_epochs=2"]
    answer = darkroom("train", "digits/cnn", *TINY, "--data.val_fraction=0", *stopping)
    assert answer.status == 0, answer.errors
    record = store.find_run(run_id(answer.output))
    assert record.metrics["best/epoch"] == 2
    assert not any(name.startswith(("val/", "best/acc")) for name in record.metrics)
    assert "test/accuracy" in record.metrics


def test_without_tracking_no_store_is_touched(fresh_workspace):
    answer = fresh_workspace.run("train", "digits/cnn", "--trainer.max_epochs=1", "--mlflow.enabled=false")
    assert answer.status == 0, answer.errors
    assert "accuracy" in answer.output
    assert list(fresh_workspace.folder.iterdir()) == []


def test_a_loss_that_explodes_fails_the_run_and_names_step_and_knob(darkroom, store):
    exploding = ["--model.optimizer=sgd", "--model.lr=1e30", "--model.backbone_options.normalization=none"]
    answer = darkroom("train", "digits/cnn", "--mlflow.run_name=exploded", *exploding)
    assert answer.status == 1
    assert "step" in answer.errors
    assert "model.lr" in answer.errors
    assert "Traceback" not in answer.errors
    record = store.find_run("exploded")
    assert record.status == "FAILED"
    assert "NonFiniteLossError" in record.read_text("traceback.txt")


def test_a_network_that_dies_in_validation_fails_the_run_and_is_never_chosen(darkroom, store, monkeypatch):
    alive = ImageClassifier.forward

    def dead_in_evaluation(self, images):
        logits = alive(self, images)
        return logits if self.training else logits * math.nan

    monkeypatch.setattr(ImageClassifier, "forward", dead_in_evaluation)
    answer = darkroom("train", "digits/cnn", "--trainer.max_epochs=2", "--mlflow.run_name=dead")
    assert answer.status == 1
    assert "the network's outputs for 139 of 139 val images are NaN or infinite in epoch 0" in answer.errors
    assert "Traceback" not in answer.errors
    record = store.find_run("dead")
    assert record.status == "FAILED"
    assert not any(name.startswith(("val/", "best/", "test/")) for name in record.metrics)


def test_a_run_is_not_judged_again_with_outputs_that_are_no_numbers(trained, darkroom, monkeypatch):
    monkeypatch.setattr(
        ImageClassifier, "forward", lambda self, images: images.new_full((len(images), 10), math.nan)
    )
    answer = darkroom("evaluate", trained)
    assert answer.status == 1
    assert "372 of 372 test images are NaN or infinite" in answer.errors


@pytest.mark.parametrize("key", ["trainer.monitor", "trainer.early_stopping.monitor"])
def test_a_monitor_without_a_value_on_the_validation_images_is_refused(key, darkroom, monkeypatch):
    load = Digits.load

    def one_class_held_out(self):
        whole = load(self)
        ones = (whole["test"].targets == 1).nonzero().flatten()
        return {"train": whole["train"], "val": whole["test"].select(ones)}

    monkeypatch.setattr(Digits, "load", one_class_held_out)
    answer = darkroom("train", "digits/cnn", "--trainer.monitor=val/loss", f"--{key}=val/auroc")
    assert answer.status == 2
    assert f"{key}=val/auroc has no value on the" in answer.errors
    assert "all of them are of class 1" in answer.errors


def test_a_checkpoint_that_cannot_be_written_ends_the_run_clearly(fresh_workspace, open_store_at):
    wide = ["--model.backbone=dense", "--model.backbone_options={hidden_sizes: [8192]}"]
    process = fresh_workspace.start("train", "digits/cnn", *wide, "--mlflow.run_name=full")
    # More bytes in one file than the store has, and less than this network's checkpoint.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "writing failed" in errors
    assert "Traceback" not in errors
    assert open_store_at(fresh_workspace).find_run("full").status == "FAILED"


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_folder_that_cannot_be_written_is_refused_before_training(command, fresh_workspace):
    (fresh_workspace.folder / "mlruns").write_text("a file where the folder should be")
    answer = fresh_workspace.run(command, "digits/cnn")
    assert answer.status == 2
    assert "mlruns" in answer.errors
    assert "Traceback" not in answer.errors


def test_a_tracking_server_keeps_the_whole_run_and_one_that_dies_stops_it_clearly(
    fresh_workspace, mlflow_server
):
    folder = fresh_workspace.folder
    small = ["train", "digits/cnn", "--model.backbone_options.widths=[8]"]
    with mlflow_server(folder) as url:
        answer = fresh_workspace.run(*small, "--trainer.max_epochs=2", MLFLOW_TRACKING_URI=url)
        assert answer.status == 0, answer.errors
        again = fresh_workspace.run("evaluate", run_id(answer.output), MLFLOW_TRACKING_URI=url)
        assert again.status == 0, again.errors
        assert not (folder / "mlflow.db").exists()
        # It goes away while a run is under way.
        process = fresh_workspace.start(
            *small,
            "--trainer.max_epochs=500",
            MLFLOW_TRACKING_URI=url,
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
            MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.1",
        )
        left = wait_for_epoch(folder, 2, process)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "darkroom train --resume" in errors
    assert "Traceback" not in errors
    assert (folder / "mlruns" / "checkpoints" / left / "last.ckpt").is_file()
    started_at = time.monotonic()
    refused = fresh_workspace.run(*small, MLFLOW_TRACKING_URI=url)
    assert refused.status == 2
    assert "does not answer" in refused.errors
    assert url in refused.errors
    assert time.monotonic() - started_at < 60


def test_epochs_without_validation_record_none_and_are_not_chosen(darkroom, store):
    run = ["train", "digits/cnn", "--trainer.max_epochs=5", "--model.backbone_options.widths=[8]"]
    common = ["--trainer.monitor=val/accuracy", "--trainer.early_stopping=null"]
    each = darkroom(*run, *common, "--mlflow.run_name=each_epoch")
    some = darkroom(
        *run, *common, "--trainer.extra={check_val_every_n_epoch: 2}", "--mlflow.run_name=every_second"
    )
    assert (each.status, some.status) == (0, 0), some.errors
    before, now = (store.find_run(name) for name in ("each_epoch", "every_second"))
    measured = before.history(["val/accuracy"])
    assert now.history(["val/accuracy"]) == {epoch: measured[epoch] for epoch in (2, 4)}
    assert sorted(now.history(["train/loss"])) == [1, 2, 3, 4, 5]
    best = max((2, 4), key=lambda epoch: (measured[epoch]["val/accuracy"], -epoch))
    assert now.metrics["best/epoch"] == best
    assert now.metrics["best/accuracy"] == measured[best]["val/accuracy"]


def test_the_last_epoch_is_judged_where_it_is_chosen_though_it_was_not_validated(darkroom, store):
    run = ["train", "digits/cnn", "--trainer.max_epochs=3", "--model.backbone_options.widths=[8]"]
    common = ["--trainer.monitor=null", "--trainer.early_stopping=null"]
    darkroom(*run, *common, "--mlflow.run_name=last_each")
    darkroom(*run, *common, "--trainer.extra={check_val_every_n_epoch: 2}", "--mlflow.run_name=last_second")
    each, second = (store.find_run(name) for name in ("last_each", "last_second"))
    assert second.metrics["best/epoch"] == 3
    assert second.metrics["best/accuracy"] == each.metrics["best/accuracy"]


@pytest.mark.parametrize("name", ["limit_test_batches", "limit_val_batches", "val_check_interval"])
def test_metrics_of_a_part_of_a_split_are_refused(name, darkroom):
    answer = darkroom("train", "digits/cnn", f"--trainer.extra={{{name}: 1}}")
    assert answer.status == 2
    assert f"trainer.extra must not have {name}" in answer.errors


def test_a_split_that_is_left_whole_is_not_refused():
    extra = {
        "limit_val_batches": 1.0,
        "limit_test_batches": None,
        "overfit_batches": 0.0,
        "fast_dev_run": False,
    }
    check_takes_extra(TrainerSettings(precision="32-true", accelerator="cpu", extra=extra))


def test_validation_that_no_epoch_comes_to_chooses_none_and_is_refused(darkroom):
    run = ["train", "digits/cnn", "--trainer.max_epochs=2"]
    answer = darkroom(*run, "--trainer.monitor=val/loss", "--trainer.extra={check_val_every_n_epoch: 3}")
    assert answer.status == 2
    assert "check_val_every_n_epoch must be at most trainer.max_epochs=2, got 3" in answer.errors


def test_the_loss_on_other_images_weighs_classes_as_the_run_did(darkroom, store):
    run = ["train", "digits/cnn", "--trainer.max_epochs=1", "--model.backbone_options.widths=[4]"]
    answer = darkroom(*run, "--model.class_weights=balanced", "--mlflow.run_name=weighted")
    assert answer.status == 0, answer.errors
    record = store.find_run("weighted")
    own, other = (restore(record, {"data.val_fraction": share}) for share in ("0.1", "0.6"))
    assert own.data.class_counts() != other.data.class_counts()
    assert torch.equal(own.model.criterion.class_weights, other.model.criterion.class_weights)
    balanced = len(own.data.splits["train"]) / (10 * np.array(own.data.class_counts()))
    assert own.model.criterion.class_weights.numpy() == pytest.approx(balanced, rel=1e-6)
