"""A run on several machines is the run on one, recorded by the first; when one is missing it ends clearly."""

from __future__ import annotations

import signal
import socket

import pytest
from support.training import LONG, PLAIN, assert_same_run, run_id, wait_for_epoch

from darkroom.experiments.errors import RankError, RequestError
from darkroom.experiments.training.distributed import rendezvous
from darkroom.experiments.training.distributed.rendezvous import Node, await_until

pytestmark = pytest.mark.slow_first

TWO_MACHINES = ["--trainer.num_nodes=2", "--trainer.accelerator=cpu"]


@pytest.fixture
def machines():
    """Where two machines find each other: the first one's port, and both one's variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{"NODE_RANK": str(node), **where} for node in range(2)]


def ended(process) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def test_two_machines_give_the_run_of_one_and_one_record(workspace, machines, store):
    keys = [f"--{key}={value}" for key, value in PLAIN.items()]
    train = ["train", "digits/cnn", *keys]
    alone = workspace.run(*train, "--mlflow.run_name=alone")
    assert alone.status == 0, alone.errors
    other = workspace.start(*train, *TWO_MACHINES, **machines[1])  # comes first, and waits
    first = workspace.start(*train, *TWO_MACHINES, "--mlflow.run_name=two machines", **machines[0])
    told = ended(first)
    assert "machine 1 of 2 has trained its share" in ended(other)
    assert told.count("epoch 2/2") == 1
    one, two = store.find_run("alone"), store.find_run("two machines")
    assert run_id(told) == two.run_id
    for name in ("best/accuracy", "best/loss", "test/accuracy", "test/log_loss"):
        assert two.metrics[name] == pytest.approx(one.metrics[name], abs=2e-6), name
    assert two.params["trainer.num_nodes"] == "2"


@pytest.mark.slow  # four minutes; test_ranks has two processes of one machine, at every run
def test_a_run_of_two_machines_resumes_to_the_same_bits(workspace, machines, store):
    whole = [workspace.start(*LONG, *TWO_MACHINES, **where) for where in machines]
    uninterrupted = run_id(ended(whole[0]))
    ended(whole[1])
    first, other = (workspace.start(*LONG, *TWO_MACHINES, **where) for where in machines)
    killed = wait_for_epoch(workspace.folder, 3, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    _, errors = other.communicate(timeout=60)
    assert other.returncode == 1, "it trained on without the first"
    assert "rank 1 of 2 failed" in errors
    assert "Traceback" not in errors
    again = [workspace.start("train", "--resume", killed, **where) for where in machines]
    for process in again:
        ended(process)
    assert_same_run(store.find_run(uninterrupted), store.find_run(killed), store)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "NODE_RANK and MASTER_ADDR and MASTER_PORT"),
        ({"NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "0 to 1"),
        ({"NODE_RANK": "first", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "must be numbers"),
    ],
)
def test_a_machine_that_does_not_know_its_place_is_told_how(variables, named, monkeypatch):
    for name in rendezvous.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=named):
        Node.here(2)


def test_under_slurm_srun_says_it(monkeypatch):
    for name in rendezvous.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    slurm = {
        "STEP_ID": "0",
        "NTASKS": "2",
        "NTASKS_PER_NODE": "1",
        "JOB_NAME": "train",
        "JOB_ID": "1234",
        "NODEID": "1",
        "NODELIST": "gpu[07-08]",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert Node.here(2) == Node(number=1, count=2, address="gpu07", port=16234)


def test_nobody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(RankError, match=r"the first machine \(127\.0\.0\.1:9\) does not answer"):
        Node(number=1, count=2, port=9).open_board()
    board = Node(count=2).open_board()
    with pytest.raises(RankError, match="the other machines do not come"):
        Node(count=2).others_ready(board)
    board.set("failed/1", "rank 1 of 2 failed: ValueError: no such folder")
    with pytest.raises(RankError, match="machine 1 of 2: rank 1 of 2 failed: ValueError: no such folder"):
        Node(count=2).others_ready(board)
    await_until(lambda: True, "not reached")


@pytest.mark.parametrize(
    "command",
    [["sweep", "digits/cnn"], ["tune", "digits/cnn"], ["train", "digits/cnn", "--folds=3"],
     ["learning-curve", "digits/cnn"]],
)  # fmt: skip
def test_what_trains_many_runs_is_refused_on_several_machines(command, darkroom):
    answer = darkroom(*command, "--trainer.num_nodes=2")
    assert answer.status == 2
    assert "set trainer.num_nodes=1" in answer.errors
