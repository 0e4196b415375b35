"""Whatever is killed, and when, a sweep ends with every trial once, and loses nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import optuna
import psutil
import pytest
from support.sweep_processes import trial_processes, wait_for

from darkroom.experiments.sweep.study.storage import complete_url

pytestmark = pytest.mark.slow_first


class Torment:
    """Starts a sweep again and again, and kills something of it each time it has come a little further."""

    def __init__(self, workspace, command, seed):
        self.workspace = workspace
        self.command = command
        self.random = random.Random(seed)
        self.process = None
        self.killed = []

    def run(self, kills):
        for _ in range(kills):
            self.start()
            wait_for(lambda: trial_processes(self.process), self.process)
            time.sleep(self.random.uniform(0.0, 1.5))
            self.kill(self.random.choice(["trial", "controller", "group"]))
        self.start()
        output, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        return output

    def start(self):
        if self.process is None or self.process.poll() is not None:
            self.process = self.workspace.start(*self.command, start_new_session=True)

    def kill(self, what):
        if self.process.poll() is not None:  # it was done before
            return
        self.killed.append(what)
        if what == "trial":
            processes = trial_processes(self.process)
            if processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.random.choice(processes).kill()
        elif what == "controller":
            orphans = trial_processes(self.process)
            self.process.kill()
            self.process.communicate()
            _, alive = psutil.wait_procs(orphans, timeout=5)
            assert not alive, "trials outlived their controller"
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


@pytest.mark.parametrize(
    ("database_of", "kills", "trials"),
    [
        ("sqlite", 4, 8),
        pytest.param("sqlite", 10, 24, marks=pytest.mark.slow),
        pytest.param("postgresql", 10, 24, marks=pytest.mark.slow),
    ],
)
def test_random_kills_lose_and_double_nothing(
    database_of, kills, trials, request, fresh_workspace, small, write_recipe, open_store_at
):
    storage = f"sqlite:///{fresh_workspace.folder / 'optuna.db'}"
    if database_of == "postgresql":
        storage = request.getfixturevalue("database")
    recipe = write_recipe(fresh_workspace.folder, "tormented", trials=trials)
    command = ["sweep", recipe, f"--storage={storage}", "--workers=2", *small, "--data.batch_size=16"]
    torment = Torment(fresh_workspace, command, seed=10)
    output = torment.run(kills)
    assert len(torment.killed) == kills

    study = optuna.load_study(study_name="digits/tormented", storage=complete_url(storage))
    assert [trial.number for trial in study.trials] == list(range(trials))
    states = {trial.state.name for trial in study.trials}
    assert states <= {"COMPLETE", "PRUNED"}
    assert "PRUNED" in states or trials < 24  # among fewer, none need be hopeless

    store = open_store_at(fresh_workspace)
    children = store.child_runs(store.find_run("sweep digits/tormented"))
    runs = {int(run.tags["trial"]): run for run in children if run.tags["role"] == "trial"}
    assert sorted(run.tags["role"] for run in children) == ["trial"] * trials + ["winner"]
    assert sorted(runs) == list(range(trials))
    for trial in study.trials:
        run = runs[trial.number]
        assert run.run_id == trial.user_attrs["mlflow_run"]
        assert run.status == ("FINISHED" if trial.state.name == "COMPLETE" else "KILLED")
        epochs = [point.step for point in store.client.get_metric_history(run.run_id, "val/accuracy")]
        assert epochs == list(range(1, len(epochs) + 1)), f"trial {trial.number} recorded {epochs}"
        assert len(epochs) == trial.user_attrs["epochs"]
        assert list(trial.intermediate_values) == epochs
    assert not [path for path in fresh_workspace.folder.glob("mlruns/checkpoints/*") if len(path.name) == 32]

    again = fresh_workspace.run(*command)
    assert again.status == 0, again.errors
    assert "nothing is left to do" in again.output
    assert f"{trials} trials" in output
