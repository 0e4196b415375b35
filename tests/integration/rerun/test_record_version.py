"""Records of before a repair: read with their meaning, and not mixed with later ones in silence."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from darkroom.experiments.cli.list import read_claim
from darkroom.experiments.config.settings import ClaimedValue
from darkroom.experiments.recipes import recipe_names
from darkroom.experiments.tracking import record_version
from darkroom.experiments.tracking.provenance_diff import repairs_told
from darkroom.experiments.tracking.record_version import RECORD_VERSION, Repair, former_values, repairs_since
from darkroom.experiments.tracking.recorded_experiment import parse_recorded
from darkroom.experiments.workflows.reproduce.seed_runs import Seed
from darkroom.experiments.workflows.reproduce.verdict import HEADER, row

ARCHIVE = Path(__file__).parent / "store_of_version_1" / "store.tar.xz"


@pytest.fixture
def old_workspace(fresh_workspace):
    """A project folder whose store the code of record version 1 has written."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(fresh_workspace.folder, filter="data")
    for entry in (fresh_workspace.folder / "store").iterdir():
        shutil.move(entry, fresh_workspace.folder / entry.name)
    before = (fresh_workspace.folder / "recorded_in").read_text() + "/store"
    with contextlib.closing(sqlite3.connect(fresh_workspace.folder / "mlflow.db")) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
                (before, str(fresh_workspace.folder)),
            )
    return fresh_workspace


def answered(workspace, *arguments):
    """What a command printed, which must have ended well; its spaces folded."""
    answer = workspace.run(*arguments, OMP_NUM_THREADS="1")
    assert answer.status == 0, answer.errors
    return " ".join(answer.output.split())


def test_every_run_is_tagged_with_the_present_version(trained_run):
    assert trained_run.tags["record_version"] == str(RECORD_VERSION)


def test_a_run_of_version_1_is_judged_as_it_was_recorded(old_workspace, open_store_at):
    record = open_store_at(old_workspace).find_run("pictures")
    shown = answered(old_workspace, "evaluate", "pictures")
    assert all(f"note: {line}" in shown for line in repairs_told(record))
    for metric in ("test/accuracy", "test/log_loss"):
        now = shown.split(f"{metric} ")[1].split("│")[2]
        # Another processor, and so another order of additions, than the one that recorded it.
        assert float(now) == pytest.approx(record.metrics[metric], abs=1e-5)


def test_a_run_of_version_1_keeps_its_classes_its_split_and_what_it_decodes(old_workspace, open_store_at):
    record = open_store_at(old_workspace).find_run("pictures")
    facts = json.loads(record.read_text("data/facts.json"))
    data = parse_recorded(record, {}).load_data()
    now = data.facts()
    assert now["class_names"] == facts["class_names"] == sorted(map(str, range(12)))
    assert now["split_fingerprint"] == facts["split_fingerprint"]
    assert now["fingerprint"] == facts["fingerprint"]


def test_a_run_of_version_1_goes_on_with_a_note_and_counts_as_neither_version(old_workspace, open_store_at):
    store = open_store_at(old_workspace)
    told = repairs_told(store.find_run("stopped"))
    shown = answered(old_workspace, "train", "--resume", "stopped")
    assert told
    assert all(f"note: {line}" in shown for line in told)
    record = store.find_run("stopped")
    assert (record.status, record.last_epoch()) == ("FINISHED", 8)
    assert record.tags["record_version"] == f"1+{RECORD_VERSION}"


def test_a_rerun_of_version_1_names_the_repairs(old_workspace, open_store_at):
    shown = answered(old_workspace, "rerun", "digits")
    told = repairs_told(open_store_at(old_workspace).find_run("digits"))
    assert all(f"changed: {line}" in shown for line in told)


def test_seeds_of_different_versions_are_two_configurations_unless_asked(old_workspace):
    tiny = ["--model.backbone_options.widths=[4]", "--trainer.max_epochs=2"]
    answered(old_workspace, "train", "digits/cnn", *tiny, "--seed=1")
    apart = answered(old_workspace, "compare", "digits/cnn")
    assert "│ A │ 1 │" in apart
    assert "│ B │ 1 │" in apart
    assert f"runs of record versions 1 and {RECORD_VERSION}" in apart
    # What a key restores is a difference of the configuration all the same.
    assert "record versions" in answered(old_workspace, "compare", "digits/cnn", "--any-version")


def test_a_reproduction_counts_runs_of_the_present_version_alone(old_workspace):
    own = old_workspace.folder / "claimed.yaml"
    record = next((old_workspace.folder / "mlruns" / "1").iterdir())
    own.write_text(
        (record / "artifacts" / "config.yaml").read_text().partition("\nclaim:")[0]
        + "\nclaim: {metrics: {test/accuracy: {value: 0.6, tolerance: 0.1}}, seeds: [0]}\n"
    )
    shown = answered(old_workspace, "reproduce", str(own), "--recorded")
    assert "not counted are 1 runs of record version 1" in shown
    assert "65.59 %" not in shown
    shown = answered(old_workspace, "reproduce", str(own), "--recorded", "--any-version")
    assert "65.59 %" in shown


def test_a_study_of_before_a_repair_is_not_gone_on_with_unless_asked(fresh_workspace):
    command = ["sweep", "digits/cnn", "--trials", "1", "--trainer.max_epochs=1", "--sweep.confirm=null"]
    command += ["--model.backbone_options.widths=[4]", "--mlflow.enabled=false"]
    answered(fresh_workspace, *command)
    with contextlib.closing(sqlite3.connect(fresh_workspace.folder / "optuna.db")) as database, database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'record_version'")
    command[3] = "2"
    refused = fresh_workspace.run(*command)
    assert refused.status == 2
    assert "was begun at record version 1" in refused.errors
    answered(fresh_workspace, *command, "--any-version")


def test_repairs_since_a_version_are_those_that_concern_the_run(monkeypatch):
    repairs = (
        Repair(2, "a", before={"data.k": "old"}),
        Repair(2, "b", concerns=lambda params: params.get("model.lr") == "1"),
        Repair(3, "c", before={"data.k": "less old", "model.j": "x"}),
    )
    monkeypatch.setattr(record_version, "REPAIRS", repairs)
    assert [repair.what for repair in repairs_since({}, {})] == ["a", "c"]
    assert [repair.what for repair in repairs_since({}, {"model.lr": "1"})] == ["a", "b", "c"]
    assert [repair.what for repair in repairs_since({"record_version": "2"}, {})] == ["c"]
    assert former_values({}, {}) == {"data.k": "old", "model.j": "x"}
    assert former_values({"record_version": "2"}, {}) == {"data.k": "less old", "model.j": "x"}
    assert former_values({"record_version": "1+2"}, {}) == {"data.k": "old", "model.j": "x"}


def test_claims_of_our_own_say_when_they_were_measured_and_old_ones_are_listed(darkroom, monkeypatch):
    ours = [name for name in recipe_names() if read_claim(name).get("source") == "ours"]
    assert ours
    assert all(read_claim(name)["measured_at"] <= RECORD_VERSION for name in ours)
    monkeypatch.setattr("darkroom.experiments.cli.list.RECORD_VERSION", RECORD_VERSION + 1)
    listed = darkroom("list", "--outdated").output
    assert [name for name in recipe_names() if f"{name} " in listed] == ours
    monkeypatch.setattr("darkroom.experiments.cli.list.RECORD_VERSION", 1)
    assert "every claim of our own was measured at record version 1" in darkroom("list", "--outdated").output


def test_a_row_of_reproductions_tells_the_versions_of_its_runs():
    runs = [
        SimpleNamespace(tags=tags, metrics={"test/accuracy": 0.9}) for tags in ({}, {"record_version": "2"})
    ]
    seeds = [Seed(number, run, 1.0) for number, run in enumerate(runs)]
    told = row("digits/cnn", "ours", "test/accuracy", ClaimedValue(0.9), seeds, "").cells()
    assert told[HEADER.index("record version")] == "1, 2"
