"""Under a real SLURM, with two nodes on this machine: jobs that are pre-empted go on, and nothing is lost."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.sweep_processes import assert_each_trial_once, checkpoints, controllers, wait_for
from support.training import LONG, assert_same_run, run_id

pytestmark = pytest.mark.slow
ENDLESS = ["--trainer.max_epochs=400", "--trainer.early_stopping=null", "--data.batch_size=16"]
# cred_expire is also how many seconds a job that is queued again has to wait.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1
PartitionName=main Nodes=n1,n2 Default=YES
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables by which SLURM's commands find a cluster of two nodes, both on this machine."""
    missing = [name for name in ("munged", "mungekey", "slurmctld", "slurmd") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no SLURM here: {', '.join(missing)} (Debian's packages slurm-wlm and munge)")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)  # munged wants its socket to be reached by all
    ports = dict(zip(("controller", "first", "second"), free_ports(3), strict=True))
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=socket.gethostname(), user=getpass.getuser(), folder=folder, **ports)
    )
    (folder / "state").mkdir()
    subprocess.run(["mungekey", "--create", f"--keyfile={folder / 'munge.key'}"], check=True)
    munged = [f"--{name}-file={folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
    variables = {"SLURM_CONF": str(configuration)}
    with ExitStack() as daemons:
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *munged],
            ["slurmctld", "-D", "-c"],
            ["slurmd", "-D", "-N", "n1"],
            ["slurmd", "-D", "-N", "n2"],
        ):
            log = daemons.enter_context((folder / "daemons.log").open("a"))
            daemon = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
            daemons.callback(daemon.wait, 30)
            daemons.callback(daemon.terminate)
            time.sleep(1)  # until it listens
        wait_for(lambda: said(variables, "sinfo", "--noheader", "--format=%D %t") == "2 idle", daemon, 30)
        yield variables


def free_ports(count: int) -> list[int]:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def said(slurm: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_pre_empted_sweeps_jobs_go_on_and_do_each_trial_once(slurm, fresh_workspace, place, open_store_at):
    command = place("preempted", "--trials=4", "--launcher=slurm", "--machines=2", "--workers=1")
    process = fresh_workspace.start(
        *command, "--launcher-option=time=30", *ENDLESS, "--trainer.max_epochs=40", **slurm
    )
    wait_for(lambda: len(checkpoints(fresh_workspace)) == 2, process)
    first = controllers(fresh_workspace)
    job = said(slurm, "squeue", "--noheader", "--array", "--format=%i").split()[0]
    said(slurm, "scontrol", "requeue", job)
    wait_for(lambda: len({*controllers(fresh_workspace)} - {*first}) == 1, process)
    log = (fresh_workspace.folder / "mlruns" / "jobs" / f"{job}_0_log.out").read_text()
    assert "told to leave" in log
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert output.count("ended with status 0") == 2
    assert_each_trial_once(fresh_workspace, "preempted", 4, open_store_at)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stops_the_jobs_and_leaves_nothing_in_the_queue(times, slurm, fresh_workspace, place):
    command = place("stopping", "--trials=4", "--launcher=slurm", "--machines=2", "--workers=1", *ENDLESS)
    process = fresh_workspace.start(*command, "--launcher-option=time=30", start_new_session=True, **slurm)
    wait_for(lambda: len(checkpoints(fresh_workspace)) == 2, process)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "the same command again" in errors
    if times == 1:
        assert output.count("it can go on") >= 2
    wait_for(lambda: not said(slurm, "squeue", "--noheader"))
    assert not controllers(fresh_workspace)


def test_a_job_that_someone_cancels_is_not_waited_for(slurm, fresh_workspace, place):
    command = place("cancelled", "--trials=4", "--launcher=slurm", "--workers=1", *ENDLESS)
    process = fresh_workspace.start(*command, "--launcher-option=time=30", **slurm)
    wait_for(lambda: checkpoints(fresh_workspace), process)
    said(slurm, "scancel", *said(slurm, "squeue", "--noheader", "--format=%A").split())
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 1, output + errors
    assert "has left SLURM's queue without a result" in output


def test_a_pre_empted_training_ends_as_if_it_had_not_been(slurm, fresh_workspace, open_store_at):
    whole = fresh_workspace.run(*LONG)
    train = f"{sys.executable} -m experiments train"
    arguments = shlex.join([*LONG[1:], "--mlflow.run_name=preempted"])
    script = f"{train} --resume preempted || {{ [ $? -eq 2 ] && {train} {arguments}; }}"
    environment = slurm | {"MLFLOW_TRACKING_URI": fresh_workspace.store_uri}
    options = ["--parsable", "--requeue", "--open-mode=append", f"--chdir={fresh_workspace.folder}"]
    job = said(environment, "sbatch", *options, f"--wrap={script}")
    wait_for(lambda: checkpoints(fresh_workspace))
    said(slurm, "scontrol", "requeue", job)
    wait_for(lambda: not said(slurm, "squeue", "--noheader"))
    store = open_store_at(fresh_workspace)
    log = (fresh_workspace.folder / f"slurm-{job}.out").read_text()
    assert log.count("told to leave") == 1, log
    assert_same_run(store.find_run(run_id(whole.output)), store.find_run("preempted"), store)


def test_srun_has_two_nodes_train_one_run(slurm, fresh_workspace, open_store_at):
    """Its nodes' names stand for no addresses here, so the first one's is given."""
    train = [sys.executable, "-m", "darkroom", "train", "digits/cnn", "--trainer.max_epochs=3"]
    environment = slurm | {"MLFLOW_TRACKING_URI": fresh_workspace.store_uri, "MASTER_ADDR": "127.0.0.1"}
    two = ["srun", "--nodes=2", "--ntasks-per-node=1", f"--chdir={fresh_workspace.folder}"]
    output = said(environment, *two, *train, "--trainer.num_nodes=2", "--trainer.accelerator=cpu")
    assert "machine 1 of 2 has trained its share" in output
    assert output.count("epoch 3/3") == 1
    store = open_store_at(fresh_workspace)
    assert store.find_run(run_id(output)).status == "FINISHED"
