"""A trial that trains on several devices is a trial like any other, and takes the room it asks for."""

from __future__ import annotations

import os

import optuna
import psutil
import pytest
import torch
from support.training import wait_for_epoch

from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.errors import RequestError
from darkroom.experiments.sweep.execution.resources import Slot, allocate_slots

TWO = ["--trainer.devices=2", "--trainer.accelerator=cpu"]
pytestmark = [
    pytest.mark.slow_first,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a trial on two devices takes two cores"),
]


def processes_of(process) -> list[psutil.Process]:
    """Those of the trial under way, rank 0 first: children of the server, which is the controller's child."""
    children = [child for server in psutil.Process(process.pid).children() for child in server.children()]
    return sorted(children, key=lambda child: child.create_time())


def test_trials_on_two_devices_are_pruned_on_both_and_leave_no_process(workspace, write_recipe, small, store):
    recipe = write_recipe(workspace.folder, "two_devices", trials=10)
    process = workspace.start("sweep", recipe, *TWO, *small, start_new_session=True)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    # A process closes its pipes, which is what was waited for, a moment before it is gone.
    left = [each for each in psutil.process_iter() if runs_in_session(each, process.pid)]
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not alive, "a process outlived the sweep"
    study = optuna.load_study(
        study_name="digits/two_devices", storage=f"sqlite:///{workspace.folder / 'optuna.db'}"
    )
    # No FAIL: rank 0 does not end a trial well unless the others have stopped after the same epoch.
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}
    runs = {run.tags.get("trial"): run for run in store.child_runs(store.find_run("sweep digits/two_devices"))
            if run.tags["role"] == "trial"}  # fmt: skip
    for trial in study.trials:
        history = store.client.get_metric_history(runs[str(trial.number)].run_id, "val/accuracy")
        assert [point.step for point in history] == list(trial.intermediate_values)
        assert len(history) == trial.user_attrs["epochs"]
        assert (len(history) == 4) == (trial.state.name == "COMPLETE")


def runs_in_session(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.NoSuchProcess):
        return False


LONG = [
    "--trials=1",
    "--trainer.max_epochs=6",
    "--data.batch_size=16",
    "--model.dropout=0.3",
    "--model.backbone_options.widths=[8, 8]",
]


@pytest.mark.slow  # test_ranks kills a run of two processes at every run
def test_a_trial_that_is_killed_goes_on_to_the_same_predictions(workspace, write_recipe, store):
    predictions = {}
    for name in ("left_alone", "killed_once"):
        recipe = write_recipe(
            workspace.folder, name, pruner="none", space={"model.lr": {"low": 1e-3, "high": 1e-2}}
        )
        process = workspace.start("sweep", recipe, *TWO, *LONG, start_new_session=True)
        if name == "killed_once":
            wait_for_epoch(workspace.folder, 3, process)
            rank_0, rank_1 = processes_of(process)
            rank_0.kill()
            _, alive = psutil.wait_procs([rank_1], timeout=5)
            assert not alive, "a rank outlived its trial"
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
        assert ("goes on from its last checkpoint" in output) == (name == "killed_once")
        (trial,) = [run for run in store.child_runs(store.find_run(f"sweep digits/{name}"))
                    if run.tags["role"] == "trial"]  # fmt: skip
        predictions[name] = trial.predictions("val")
        epochs = [point.step for point in store.client.get_metric_history(trial.run_id, "val/loss")]
        assert epochs == list(range(1, 7))
    assert predictions["killed_once"].equals(predictions["left_alone"])


@pytest.mark.slow  # test_ranks has it of a run, at every run
def test_a_rank_that_dies_fails_its_trial_with_its_name(workspace, write_recipe):
    recipe = write_recipe(workspace.folder, "broken_rank")
    process = workspace.start("sweep", recipe, *TWO, *LONG, start_new_session=True)
    wait_for_epoch(workspace.folder, 2, process)
    _, rank_1 = processes_of(process)
    rank_1.kill()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "trial 0  failed: rank 1 of 2 died (SIGKILL)" in output + errors


def digits(devices: int, accelerator: str = "cpu", **overrides: str):
    wanted = {"trainer.devices": str(devices), "trainer.accelerator": accelerator}
    return load_experiment(["digits/cnn"], {**wanted, **overrides})


def test_a_trial_takes_a_core_or_a_gpu_for_each_device(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    for threads in (1, cores):  # what OMP_NUM_THREADS allows
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert allocate_slots(digits(2), None, 1) == [Slot(threads)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    slots = allocate_slots(digits(2, "gpu"), None, 2)
    assert [slot.gpus for slot in slots] == ["4,5", "6,7", "4,5", "6,7"]


def test_what_does_not_fit_is_refused(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    for arguments, named in [
        ((digits(cores + 1), None, 1), f"{cores + 1} cores"),
        ((digits(cores), 2, 1), "--workers must be at most 1"),
        ((digits(4, "gpu"), None, 1), "4 GPUs"),
        ((digits(2, "gpu"), 2, 1), "--workers must be at most 1"),
        ((digits(1, **{"sweep.space": "{trainer.devices: {choices: [1, 2]}}"}), None, 1), "trainer.devices"),
    ]:
        with pytest.raises(RequestError, match=named):
            allocate_slots(*arguments)
