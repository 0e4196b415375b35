"""A sweep told to leave, as `scancel` or a pre-emption tells it, loses no step of any trial."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from support.sweep_processes import checkpoints, studied, trial_processes, wait_for

# An epoch takes hundreds of steps.
LONG = ["--trainer.max_epochs=2", "--trainer.early_stopping=null", "--data.batch_size=8"]
OFTEN = "--trainer.checkpoint_every_n_steps=20"


@pytest.mark.parametrize(
    "whom", ["a trial, then the controller", pytest.param("all processes", marks=pytest.mark.slow)]
)
def test_trials_save_where_they_stand_and_the_same_command_goes_on(
    whom, fresh_workspace, small, write_recipe, open_store_at
):
    recipe = write_recipe(fresh_workspace.folder, "left", confirm=None)
    command = ["sweep", recipe, "--trials=2", "--workers=2", *small, *LONG]
    process = fresh_workspace.start(*command, OFTEN, start_new_session=True)
    wait_for(lambda: len(checkpoints(fresh_workspace)) == 2, process)
    if whom == "a trial, then the controller":
        ended, other = trial_processes(process)
        ended.terminate()
        wait_for(lambda: {*trial_processes(process)} - {ended, other}, process)
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "told to leave; everything so far is kept. Continue with: the same command again" in errors
    assert "Traceback" not in errors + output
    store = open_store_at(fresh_workspace)
    parent = store.find_run("sweep digits/left")
    assert [run.status for run in (parent, *store.child_runs(parent))] == ["KILLED"] * 3
    assert {trial.state.name for trial in studied(fresh_workspace, "left").trials} == {"RUNNING"}
    steps = {
        path.parent.name: torch.load(path, weights_only=True)["global_step"]
        for path in checkpoints(fresh_workspace)
    }
    assert all(steps.values())
    assert any(step % 20 for step in steps.values()), "no trial saved anything when it was told to"

    if whom == "a trial, then the controller":
        assert "its process died (SIGTERM); it goes on from its last checkpoint" in output
    else:
        again = fresh_workspace.run(*command, OFTEN)
        assert again.status == 0, again.errors
        for run in store.child_runs(parent):
            epochs = [point.step for point in store.client.get_metric_history(run.run_id, "train/loss")]
            assert epochs == [1, 2]
