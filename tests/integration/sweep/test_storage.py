"""A lease is one process's, and free again as soon as that process dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from darkroom.experiments.errors import RequestError
from darkroom.experiments.sweep.study.storage import STORAGE_ERRORS, Sightings, open_leases, open_storage

HOLDER = """
import os, sys, time
from darkroom.experiments.sweep.study.storage import open_leases, open_storage
leases = open_leases(open_storage(sys.argv[1]), "study")
print("taken" if leases.take("trial-0") is not None else "refused", flush=True)
time.sleep(60)
"""
FORKER = HOLDER.replace(
    "time.sleep(60)", "pid = os.fork()\nprint(pid, flush=True) if pid else 0\ntime.sleep(60)"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    return request.getfixturevalue("database")


def hold(url: str, program: str = HOLDER) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_a_lease_is_one_processs_until_it_dies(url):
    leases = open_leases(open_storage(url), "study")
    holder = hold(url)
    assert leases.take("trial-0") is None
    assert leases.take("trial-1") is not None
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    until = time.monotonic() + 30  # a busy server takes its time to see that the connection is gone
    while leases.take("trial-0") is None:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_released_lease_can_be_taken_by_another(url):
    leases = open_leases(open_storage(url), "study")
    assert leases.take("trial-0") is not None
    leases.release("trial-0")
    hold(url).kill()


def test_studies_in_one_storage_have_leases_of_their_own(url):
    storage = open_storage(url)
    assert open_leases(storage, "study").take("trial-0") is not None
    assert open_leases(storage, "other").take("trial-0") is not None


def test_a_living_orphan_keeps_the_lease_that_it_was_given(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    parent = hold(url, FORKER)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    leases = open_leases(open_storage(url), "study")
    assert leases.take("trial-0") is None
    psutil.Process(child).kill()
    for _ in range(100):
        if leases.take("trial-0") is not None:
            return
        time.sleep(0.05)
    raise AssertionError("the lease of a dead process was not freed in 5 s")


def test_lost_leases_are_noticed_and_can_be_taken_again(database, postgres):
    storage = open_storage(database)
    leases = open_leases(storage, "study")
    assert leases.take("trial-0") is not None
    leases.check()
    postgres.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid();")
    with pytest.raises(STORAGE_ERRORS):
        leases.check()
    postgres.stop()
    for _ in range(2):
        with pytest.raises(STORAGE_ERRORS):
            leases.renew()
    postgres.start()
    leases.renew()
    assert leases.take("trial-0") is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("optuna.db", "URL such as sqlite:///optuna.db"),
        ("mysql://host/database", "SQLite or PostgreSQL"),
        ("sqlite:////nowhere/optuna.db", "can't be opened"),
        ("postgresql://nobody:secret@127.0.0.1:1/none", "can't be opened"),
    ],
)
def test_a_storage_that_is_none_is_refused_without_its_password(url, said):
    with pytest.raises(RequestError, match=said) as refused:
        open_storage(url)
    assert "secret" not in str(refused.value)


def test_a_trial_taken_up_again_keeps_number_parameters_and_reports(url):
    """`optuna.trial.Trial`'s constructor is Optuna's own affair; this says what we lean on."""
    study = optuna.create_study(study_name="study", storage=open_storage(url), direction="maximize")
    first = study.ask()
    value = first.suggest_float("lr", 0.0, 1.0)
    first.report(0.5, 1)

    study = optuna.load_study(study_name="study", storage=open_storage(url))
    again = optuna.trial.Trial(study, first._trial_id)
    assert again.number == first.number
    assert again.suggest_float("lr", 0.0, 1.0) == value
    again.report(0.9, 1)  # reported before, and ignored
    again.report(0.6, 2)
    study.tell(again, 0.6)
    (trial,) = study.trials
    assert trial.state is TrialState.COMPLETE
    assert trial.intermediate_values == {1: 0.5, 2: 0.6}


def test_a_peers_trial_must_be_seen_without_an_owner_for_a_while():
    sightings = Sightings(delay=0.05)
    assert not sightings.ripe(3)
    sightings.forget(3)
    assert not sightings.ripe(3)
    time.sleep(0.06)
    assert sightings.ripe(3)
    assert Sightings(delay=0.0).ripe(3)
