"""Differences between a run's recorded environment or data and the present."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pandas as pd
import torch

from darkroom.datamodules.base import ImageDataModule

from ..config.experiment import Experiment, derived_values
from ..errors import RequestError
from .provenance import code_git_state, code_sources, hardware, packages, workspace_git_state
from .record_version import RECORD_VERSION, repairs_since, version_label
from .run import RunRecord

LISTED = 12  # packages named in one line


def changed_conditions(original: RunRecord, code: bool = True) -> list[str]:
    """Packages, hardware and code that are not as the record has them, in sentences.

    The number of threads is not among it: `recorded_threads` restores it.
    """
    recorded = json.loads(original.read_text("environment/hardware.json"))
    changes = package_changes(original.read_text("environment/packages.txt"), packages())
    now = hardware()
    for name in ("python", "processor", "cpu_capability", "gpus", "cuda"):
        if recorded.get(name) != now[name]:
            changes.append(f"{name} was {recorded.get(name)}, is {now[name]}")
    return changes + (code_changes(original) if code else [])


def num_recorded_threads(original: RunRecord) -> int:
    """The number of threads that a run computed with; the present number where the run did not record one."""
    recorded = json.loads(original.read_text("environment/hardware.json"))
    return int(recorded.get("torch_threads") or torch.get_num_threads())


@contextlib.contextmanager
def recorded_threads(original: RunRecord) -> Iterator[None]:
    """Computes inside with the number of threads that a run recorded, and says so where it is another one.

    Sums that are divided among threads are added up in another order by another number of them, so that the
    weights are the same to the last bit for equal numbers only.
    """
    present, recorded = torch.get_num_threads(), num_recorded_threads(original)
    if present == recorded:
        yield
        return
    print(f"threads: {recorded}, as run {original.run_id[:8]} recorded; this process would use {present}")
    torch.set_num_threads(recorded)
    try:
        yield
    finally:
        torch.set_num_threads(present)


def package_changes(before: str, now: str) -> list[str]:
    """What two requirements files have in other versions, as one sentence.

    >>> package_changes("a==1\\nb==2\\n", "a==1\\nb==3\\nc==1\\n")
    ['packages: b 2 -> 3, c absent -> 1']
    """
    versions = [dict(line.split("==", 1) for line in text.split() if "==" in line) for text in (before, now)]
    old, new = versions
    other = [
        f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if not other:
        return []
    rest = [f"and {len(other) - LISTED} more"] if len(other) > LISTED else []
    return [f"packages: {', '.join([*other[:LISTED], *rest])}"]


def code_changes(original: RunRecord) -> list[str]:
    """Whether Darkroom's sources are as recorded; of an older record, whether its commit and diff are.

    Older records have no `source_digest`. Their commit is of the repository that the working folder lay in,
    which was not always Darkroom's own.
    """
    if "source_digest" in original.tags:
        return source_changes(original.read_text("environment/sources.txt"), code_sources())
    state = code_git_state() or {"commit": "none", "diff": ""}
    commit = original.tags.get("git_commit", "none")
    changes = []
    workspace = workspace_git_state()
    if commit == "none" or (workspace is not None and workspace["commit"] == commit):
        return ["code: perhaps. The run recorded no sources of Darkroom, and no commit of them either"]
    if state["commit"] != commit:
        changes.append(
            f"code: commit was {commit[:12]}, is {state['commit'][:12]} (--at-commit runs the recorded code)"
        )
    recorded_diff = original.read_text("environment/uncommitted.diff") if commit != "none" else ""
    if state["diff"] != recorded_diff:
        changes.append("code: the uncommitted changes are others than those recorded")
    return changes


def source_changes(before: str, now: str) -> list[str]:
    """Darkroom's files that two lists of `source_files` have in other versions, as one sentence.

    >>> source_changes("1  a.py\\n2  b.py\\n", "1  a.py\\n3  b.py\\n")
    ["code: 1 of Darkroom's files is not as recorded (b.py); --at-commit runs the recorded code"]
    """
    old, new = (
        {path: digest for digest, path in (line.split("  ", 1) for line in text.splitlines())}
        for text in (before, now)
    )
    other = [path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]
    if not other:
        return []
    rest = [f"and {len(other) - LISTED} more"] if len(other) > LISTED else []
    named = ", ".join([*other[:LISTED], *rest])
    verb = "is" if len(other) == 1 else "are"
    return [
        f"code: {len(other)} of Darkroom's files {verb} not as recorded ({named}); "
        "--at-commit runs the recorded code"
    ]


def repairs_told(original: RunRecord) -> list[str]:
    """What the present code does otherwise than the code of the run's record version, in sentences.

    What a key restores is not among it: such keys have their former values, as `parse_recorded` gives them.
    """
    return [
        f"repaired since record version {version_label(original.tags)}: {repair.what}"
        for repair in repairs_since(original.tags, original.params)
        if not repair.before
    ]


def changed_data(original: RunRecord, experiment: Experiment) -> list[str]:
    """Images, labels and split that are not as the record has them, and what follows from them."""
    return changed_images(original, experiment.data) + [
        f"{name} was {original.params[name]}, is {value}"
        for name, value in derived_values(experiment).items()
        if original.params.get(name, str(value)) != str(value)
    ]


def changed_images(original: RunRecord, data: ImageDataModule) -> list[str]:
    """Images and labels, by their fingerprint, and the split that are not as the record has them."""
    facts = json.loads(original.read_text("data/facts.json"))
    now = data.facts()
    changes = [
        f"data: the {part} images are others (fingerprint was {was}, is {now['fingerprint'].get(part)})"
        for part, was in facts["fingerprint"].items()
        if now["fingerprint"].get(part) != was
    ]
    if now["class_names"] != facts["class_names"]:
        before, after = (", ".join(each["class_names"]) for each in (facts, now))
        changes.append(f"data: the classes were {before}, are {after}")
    if now["split_fingerprint"] != facts["split_fingerprint"]:
        changes.append(split_change(pd.read_parquet(original.download("data/split.parquet")), data))
    return changes


def check_same_images(original: RunRecord, data: ImageDataModule) -> None:
    """Refuses to go on with a run on other images than it was begun with.

    Raises:
        RequestError: Images, labels or split are not as the record has them.
    """
    changes = changed_images(original, data)
    if changes:
        raise RequestError(
            f"run {original.run_id} ({original.name}) was begun with other images, and can't go on with "
            f"these. {'; '.join(changes)}. Put the images back as they were, or train anew"
        )


def check_not_trained_on(original: RunRecord, data: ImageDataModule, split: str) -> None:
    """Refuses to judge a run on images that its record has among the training images.

    Raises:
        RequestError: The split is not as the run recorded it.
    """
    recorded = pd.read_parquet(original.download("data/split.parquet"))
    trained = set(recorded.loc[recorded["split"] == "train", "id"])
    seen = trained.intersection(data.splits[split].ids)
    if seen:
        raise RequestError(
            f"run {original.run_id} ({original.name}) was trained on {len(seen):,} of the "
            f"{len(data.splits[split].ids):,} {split} images that its configuration gives today, such as "
            f"{min(seen)}: its split was another (record version {version_label(original.tags)}, the present "
            f"one is {RECORD_VERSION}). Judge it on images of your own with --data.root=..., or train it anew"
        )


def split_change(recorded: pd.DataFrame, data: ImageDataModule) -> str:
    """How many images stand in another split than the record has them in."""
    before = dict(zip(recorded["id"], recorded["split"], strict=True))
    now = {sample: split for split, store in data.splits.items() for sample in store.ids}
    moved = sum(before[sample] != split for sample, split in now.items() if sample in before)
    new, gone = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    return f"split: {moved} images moved to another part, {new} are new, {gone} are gone"
