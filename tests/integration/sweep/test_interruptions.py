"""Ctrl-C, crashing trials, stores that go away: a sweep says what happens, and goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import optuna
import psutil
import pytest
from support.sweep_processes import checkpoints, studied, trial_processes, wait_for

from darkroom.experiments.sweep.execution.worker import Worker
from darkroom.experiments.sweep.study.storage import complete_url

pytestmark = pytest.mark.slow_first

LONG = [
    "--trainer.max_epochs=20",
    "--trainer.early_stopping=null",
    "--data.batch_size=32",
    "--sweep.pruner=none",
]


# Whoever asks twice asks once first.
@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), 2])
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
            assert epochs == list(range(1, 21))
            assert before[int(run.tags["trial"])] < 20


def logs(trial: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(file.path.endswith(".log") for file in trial.open_files())
    return False


class Deadly:
    """Ends the process that receives it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_a_process_that_dies_before_its_first_word_is_spoken_for(tmp_path):
    worker = Worker(Deadly(), lease=-1, log=tmp_path / "trial.log")
    assert worker.last_words() == "its process died (exit status 3)"
    assert not worker.was_killed()
    worker.end()
    assert not list(tmp_path.iterdir())


def test_a_trial_whose_process_crashes_is_tried_again_then_failed_and_harms_no_other(
    fresh_workspace, small, write_recipe, open_store_at
):
    recipe = write_recipe(fresh_workspace.folder, "crashing")
    # An epoch that ended would begin the count of deaths anew: it must outlast a busy machine's delays.
    slow = ["--trainer.max_epochs=1", "--data.batch_size=2"]
    process = fresh_workspace.start("sweep", recipe, "--trials=2", *small, *slow)
    crashed = set()
    while len(crashed) < 3:
        child = wait_for(
            lambda: [each for each in trial_processes(process) if each.pid not in crashed and logs(each)],
            process,
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


@pytest.mark.slow  # five minutes, of which one is spent waiting
def test_two_machines_share_a_study_and_outlast_a_database_and_a_server_that_go_away(
    tmp_path_factory, workspace, small, write_recipe, mlflow_server, postgres, database, request
):
    """Two folders stand for two machines: neither sees the other's checkpoints."""
    machines = [type(workspace)(tmp_path_factory.mktemp("machine")) for _ in range(2)]
    recipe = write_recipe(machines[0].folder, "shared")
    command = ["sweep", recipe, "--trials=4", f"--storage={database}", *small, *LONG]
    command.append("--trainer.max_epochs=8")
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
            from darkroom.experiments.tracking.store import open_store

            store = open_store()
            children = store.child_runs(store.find_run("sweep digits/shared"))
            assert sorted(run.tags["role"] for run in children) == ["trial"] * 4 + ["winner"]
            assert {run.status for run in children} == {"FINISHED"}
            for run in children:
                epochs = [point.step for point in store.client.get_metric_history(run.run_id, "train/loss")]
                assert epochs == list(range(1, 9))
