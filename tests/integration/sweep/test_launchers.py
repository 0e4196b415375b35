"""A launcher's copies share one study, and what could only fail on their machines is refused before."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
from support.sweep_processes import assert_each_trial_once, checkpoints, controllers, wait_for

from darkroom.experiments.sweep.study.storage import complete_url

pytestmark = pytest.mark.slow_first

LONG = ["--trainer.max_epochs=8", "--trainer.early_stopping=null", "--data.batch_size=32"]
WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None  # as if it were not installed
from darkroom.experiments.cli.main import main
status = main(sys.argv[1:])
assert "torch" not in {name for name, module in sys.modules.items() if module is not None}
sys.exit(status)
"""


@pytest.fixture
def ray_cluster(monkeypatch):
    """A Ray cluster of two nodes with a processor core each, both on this machine."""
    pytest.importorskip("ray", reason="needs the extra ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.nodes_for_trials = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def test_two_nodes_of_a_ray_cluster_share_the_trials(ray_cluster, fresh_workspace, place, open_store_at):
    command = place("raying", "--trials=4", "--launcher=ray", *LONG)
    process = fresh_workspace.start(*command, RAY_ADDRESS=ray_cluster.address)
    wait_for(lambda: len(controllers(fresh_workspace)) == 2, process)
    wait_for(lambda: len(checkpoints(fresh_workspace)) == 2, process)
    if len(os.sched_getaffinity(0)) > 1:
        cores = [tuple(each.cpu_affinity()) for each in controllers(fresh_workspace)]
        assert len(set(cores)) == 2  # Ray gave one to each
        assert {len(each) for each in cores} == {1}
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert "2 machines of Ray's cluster, on each 1 CPUs" in output
    assert output.count("ended with status 0") == 2
    assert_each_trial_once(fresh_workspace, "raying", 4, open_store_at)


def test_a_lost_nodes_copy_is_placed_again_and_loses_no_trial(
    ray_cluster, fresh_workspace, place, open_store_at
):
    command = place("losing", "--trials=4", "--launcher=ray", *LONG)
    process = fresh_workspace.start(*command, RAY_ADDRESS=ray_cluster.address)
    wait_for(lambda: len(checkpoints(fresh_workspace)) == 2, process)
    before = {each.pid for each in controllers(fresh_workspace)}
    ray_cluster.remove_node(ray_cluster.nodes_for_trials[0], allow_graceful=False)
    wait_for(lambda: len(before & {each.pid for each in controllers(fresh_workspace)}) == 1, process, 60)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert output.count("ended with status 0") == 2
    assert_each_trial_once(fresh_workspace, "losing", 4, open_store_at)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stops_the_copies_on_ray_and_leaves_nothing_running(
    times, ray_cluster, fresh_workspace, place
):
    command = place("stopping", "--trials=4", "--launcher=ray", *LONG)
    process = fresh_workspace.start(*command, RAY_ADDRESS=ray_cluster.address, start_new_session=True)
    wait_for(lambda: len(checkpoints(fresh_workspace)) == 2, process)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "the same command again" in errors
    if times == 1:
        assert output.count("it can go on") >= 2
    _, alive = psutil.wait_procs(controllers(fresh_workspace), timeout=20)
    assert not alive


def test_a_machine_without_the_folder_is_given_the_recipe(
    tmp_path, fresh_workspace, place, database, monkeypatch
):
    from darkroom.experiments.sweep.launchers.remote_command import Copy

    command = place("travelling", "--trials=2", f"--storage={database}", "--mlflow.enabled=false")
    text = (fresh_workspace.folder / "travelling.yaml").read_text()
    nowhere = str(tmp_path / "nowhere")
    ending = Copy(command, nowhere, {"travelling.yaml": text}, needs_folder=False, cpus=1)()
    assert ending.status == 0, ending.last_lines
    study = optuna.load_study(study_name="digits/travelling", storage=complete_url(database))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert not Path(nowhere).exists()

    refused = Copy(command, nowhere, {}, needs_folder=True)()
    assert refused.status == 2
    assert nowhere in refused.last_lines[0]


@pytest.mark.extra("submitit")
@pytest.mark.parametrize("machines", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_jobs_share_the_trials_and_one_whose_time_is_up_is_queued_again(
    machines, fresh_workspace, place, open_store_at
):
    """submitit's local executor runs what SLURM would."""
    local = ["--launcher=slurm", f"--machines={machines}", "--workers=1", "--launcher-option=cluster=local"]
    command = place("queued", f"--trials={2 * machines}", *local, "--launcher-option", "time=30", *LONG)
    process = fresh_workspace.start(*command)
    wait_for(lambda: len(checkpoints(fresh_workspace)) == machines, process)
    first = controllers(fresh_workspace)
    first[0].parent().send_signal(signal.SIGUSR2)  # as SLURM says that the time is up
    wait_for(lambda: len({*controllers(fresh_workspace)} - {*first}) == 1, process, 30)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert output.count("ended with status 0") == machines
    assert_each_trial_once(fresh_workspace, "queued", 2 * machines, open_store_at)


@pytest.mark.slow
def test_a_copy_that_fails_is_told_with_its_last_lines_and_its_status(fresh_workspace, place):
    local = ["--launcher=slurm", "--launcher-option=cluster=local", "--launcher-option=time=30"]
    cores = len(os.sched_getaffinity(0))
    answer = fresh_workspace.run(*place("refused", *local, f"--workers={cores + 1}"))
    assert answer.status == 2
    assert "ended with status 2" in answer.output
    assert f"--workers must be at most {cores}" in answer.output


@pytest.mark.extra("submitit")
def test_a_dry_run_shows_the_script_and_submits_nothing(fresh_workspace, place):
    options = ["time=90", "partition=gpu", "mem=16GB", "gpus_per_node=2", "setup=module load cuda"]
    given = [f"--launcher-option={option}" for option in options]
    command = place("shown", "--launcher=slurm", "--machines=3", "--workers=4", "--dry-run", *given)
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT, "torch", *command],  # which only processes of their own import
        cwd=fresh_workspace.folder,
        env=fresh_workspace.environment(),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    script = answer.stdout[answer.stdout.index("#!/bin/bash") :]
    for line in (
        "#SBATCH --array=0-2%3",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --mem=16GB",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@90",
    ):
        assert line in script.splitlines()
    assert "\nmodule load cuda\n" in script
    assert "srun " in script
    assert "--cpus-per-task=4 " in script
    assert f"# each job: darkroom {' '.join(command[:2])} --workers=4" in script
    assert not (fresh_workspace.folder / "mlruns").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--machines=2"], ["--machines", "--launcher"]),
        (["--dry-run"], ["--dry-run", "--launcher"]),
        (["--launcher=slurm", "--machines=0"], ["--machines", "at least 1"]),
        (["--launcher=slurm"], ["time=MINUTES"]),
        (["--launcher=slurm", "--launcher-option=time=1:30:00"], ["time=MINUTES"]),
        (["--launcher=slurm", "--launcher-option=partion=gpu"], ["partion", "partition"]),
        (["--launcher=slurm", "--launcher-option=nodes=2"], ["nodes", "--machines"]),
        (["--launcher=slurm", "--launcher-option=partition"], ["key=value"]),
        (["--launcher=slurm", "--launcher-option=time=9"], ["--storage", "postgresql://"]),
        (["--launcher=slurm", "--launcher-option=time=9", "--storage=mysql://host/d"], ["PostgreSQL"]),
        (
            ["--launcher=slurm", "--launcher-option=time=9", "--storage=sqlite:///a.db", "--model.lrr=1"],
            ["model.lrr", "model.lr"],
        ),
        (
            ["--launcher=slurm", "--launcher-option=time=9", "--storage=postgresql://host/d"],
            ["MLFLOW_TRACKING_URI", "--mlflow.enabled=false"],
        ),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_what_could_only_fail_on_the_machines_is_refused_before(
    arguments, named, darkroom, monkeypatch, inside
):
    pytest.importorskip("submitit")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    forks = multiprocessing.get_context("fork")  # where what is refused is found without imports
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: forks)
    answer = darkroom("sweep", "digits/cnn", *arguments)
    assert answer.status == 2
    assert len(answer.errors.strip().splitlines()) == 1
    assert all(word in answer.errors for word in named), answer.errors


@pytest.mark.parametrize(("launcher", "library"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_launcher_without_its_library_says_how_to_install_it(launcher, library, inside):
    command = ["sweep", "digits/cnn", f"--launcher={launcher}", "--storage=postgresql://host/d"]
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT, library, *command], capture_output=True, text=True
    )
    assert answer.returncode == 2, answer.stderr
    assert f'--launcher {launcher} needs {library}, which is not installed: pip install ".[{launcher}]"' in (
        answer.stderr
    )


def test_ray_is_not_asked_for_more_than_a_machine_has(ray_cluster, fresh_workspace, place):
    answer = fresh_workspace.run(
        *place("greedy", "--launcher=ray", "--workers=2"), RAY_ADDRESS=ray_cluster.address
    )
    assert answer.status == 2
    assert "--workers must be at most 1" in answer.errors
