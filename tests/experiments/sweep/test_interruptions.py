"""Ctrl-C, crashing trials, stores that go away: a sweep says what happens, and goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import optuna
import psutil
import pytest

from experiments.sweep.storage import complete_url

LONG = [
    "--trainer.max_epochs=40",
    "--trainer.early_stopping=null",
    "--data.batch_size=16",
    "--sweep.pruner=none",
]


def trial_processes(process) -> list[psutil.Process]:
    """They are the children of the server, which is the conductor's child."""
    with contextlib.suppress(psutil.NoSuchProcess):
        servers = psutil.Process(process.pid).children()
        return [child for server in servers for child in server.children()]
    return []


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing came in {seconds} s")


def studied(workspace, name) -> optuna.Study:
    return optuna.load_study(
        study_name=f"digits/{name}", storage=f"sqlite:///{workspace.folder / 'optuna.db'}"
    )


def checkpoints(workspace) -> list[object]:
    return list(workspace.folder.glob("mlruns/checkpoints/*/last.ckpt"))


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_the_running_trials_to_be_continued(
    times, fresh_workspace, small, write_recipe, open_store_at
):
    recipe = write_recipe(fresh_workspace.folder, "stopped")
    command = ["sweep", recipe, "--trials=2", "--workers=2", *small]
    process = fresh_workspace.start(*command, *LONG, start_new_session=True)
    wait_for(lambda: len(checkpoints(fresh_workspace)) == 2, process)
    started_at = time.monotonic()
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command again" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - started_at < 20
    store = open_store_at(fresh_workspace)
    parent = store.find_run("sweep digits/stopped")
    assert parent.status == "KILLED"
    assert [run.status for run in store.child_runs(parent)] == ["KILLED", "KILLED"]
    assert {trial.state.name for trial in studied(fresh_workspace, "stopped").trials} == {"RUNNING"}

    before = {
        trial.number: max(trial.intermediate_values) for trial in studied(fresh_workspace, "stopped").trials
    }
    again = fresh_workspace.run(*command, *LONG)
    assert again.status == 0, again.errors
    for run in store.child_runs(parent):
        if run.tags["role"] == "trial":
            epochs = [point.step for point in store.client.get_metric_history(run.run_id, "train/loss")]
            assert epochs == list(range(1, 41))
            assert before[int(run.tags["trial"])] < 40


def test_a_trial_whose_process_crashes_is_tried_again_then_failed_and_harms_no_other(
    fresh_workspace, small, write_recipe, open_store_at
):
    recipe = write_recipe(fresh_workspace.folder, "crashing")
    process = fresh_workspace.start("sweep", recipe, "--trials=2", *small)
    crashed = set()
    while len(crashed) < 3:
        child = wait_for(
            lambda: [each for each in trial_processes(process) if each.pid not in crashed], process
        )[0]
        crashed.add(child.pid)
        child.send_signal(signal.SIGSEGV)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "SIGSEGV" in output
    trials = studied(fresh_workspace, "crashing").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    store = open_store_at(fresh_workspace)
    children = store.child_runs(store.find_run("sweep digits/crashing"))
    runs = {run.tags["trial"]: run for run in children if run.tags["role"] == "trial"}
    assert runs["0"].status == "FAILED"
    assert "Segmentation fault" in runs["0"].read_text("traceback.txt")
    assert runs["1"].status == "FINISHED"


def test_two_machines_share_a_study_and_outlast_a_database_and_a_server_that_go_away(
    tmp_path_factory, workspace, small, write_recipe, mlflow_server, postgres, database, request
):
    """Two folders stand for two machines: neither sees the other's checkpoints."""
    machines = [type(workspace)(tmp_path_factory.mktemp("machine")) for _ in range(2)]
    recipe = write_recipe(machines[0].folder, "shared")
    command = ["sweep", recipe, "--trials=4", f"--storage={database}", *small, *LONG]
    command.append("--trainer.max_epochs=15")
    kept = tmp_path_factory.mktemp("server")
    with mlflow_server(kept) as url:
        port = int(url.rpartition(":")[2])
        processes = [machine.start(*command, MLFLOW_TRACKING_URI=url) for machine in machines]
        for process in processes:
            request.addfinalizer(process.kill)
        for machine, process in zip(machines, processes, strict=True):
            wait_for(lambda machine=machine: checkpoints(machine), process)
        postgres.stop()
        time.sleep(30)
        postgres.start()
        wait_for(lambda: trial_processes(processes[0]), processes[0])
    time.sleep(30)
    with mlflow_server(kept, port) as url:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        study = optuna.load_study(study_name="digits/shared", storage=complete_url(database))
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", url)
            patch.chdir(kept)
            from experiments.tracking import open_store

            store = open_store()
            children = store.child_runs(store.find_run("sweep digits/shared"))
            assert sorted(run.tags["role"] for run in children) == ["trial"] * 4 + ["winner"]
            assert {run.status for run in children} == {"FINISHED"}
            for run in children:
                epochs = [point.step for point in store.client.get_metric_history(run.run_id, "train/loss")]
                assert epochs == list(range(1, 16))
