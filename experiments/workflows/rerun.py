"""The rerun command: repeats a recorded run and compares."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..config.identity import PLACES
from ..config.overrides import check_overrides
from ..errors import RequestError, RunError
from ..tracking.git_worktree import checkout
from ..tracking.provenance import source_files
from ..tracking.provenance_diff import (
    changed_conditions,
    changed_data,
    changed_images,
    num_recorded_threads,
    recorded_threads,
    repairs_told,
    source_changes,
)
from ..tracking.recorded_experiment import recorded_experiment, recorded_weights
from ..tracking.run import RunRecord
from ..tracking.store import Store, open_store
from ..training.callbacks.checkpoints import read_checkpoint
from ..training.run import train
from ..training.setup import prepare

COMPARED = ("train/", "val/", "best/", "test/", "lr")  # what a run computes; the rest is what it costs


@dataclass(frozen=True)
class RunDifference:
    """How a rerun differs from its original.

    Attributes:
        epochs: Recorded by both.
        first: The first epoch at which a metric differs, None where none does.
        metric: The one that differs most there, relative to its size.
        by: How much it does.
        final: The largest difference among the chosen checkpoint's metrics on validation and test.
        weights: The largest difference of a weight of the chosen checkpoints; infinite where their
            shapes differ.
        num_weights: How many were compared.
    """

    epochs: int
    first: int | None
    metric: str
    by: float
    final: float
    weights: float
    num_weights: int

    @property
    def verdict(self) -> str:
        """`bit-identical`, or how far from the original it is."""
        if self.first is None and self.final == 0 and self.weights == 0:
            return "bit-identical"
        return f"within {self.final:.2g} of the original" if math.isfinite(self.final) else "not comparable"

    def told(self) -> list[str]:
        """The verdict's grounds, in sentences."""
        if self.num_weights == 0:
            same = f"{self.epochs} epochs were compared, and no weights: a sweep keeps none of its trials"
        else:
            same = f"{self.epochs} epochs and {self.num_weights:,} weights were compared"
        if self.verdict == "bit-identical":
            weights = " and every weight" if self.num_weights else ""
            return [f"{same}; every metric{weights} is the same to the last bit"]
        lines = [same]
        if self.first is not None:
            lines.append(f"diverged at epoch {self.first}: {self.metric} differs by {self.by:.2g}")
        apart = f"differ by up to {self.weights:.2g}" if math.isfinite(self.weights) else "have other shapes"
        if self.num_weights == 0:
            return lines
        return [*lines, f"weights of the chosen checkpoints {apart}"]


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Trains the run once more and holds both records against each other."""
    check_overrides(overrides, PLACES, "a rerun is the same run")
    store = open_store()
    original = store.find_run(arguments.query)
    if children := store.child_runs(original):
        raise RequestError(
            f"run {original.run_id} ({original.name}) tells of the {len(children)} runs below it: rerun one "
            f"of them, such as {children[0].run_id[:8]}"
        )
    if not original.is_training:
        raise RequestError(
            f"run {original.run_id} ({original.name}) trained no network to be judged: the command that it "
            "is of, given again, makes another"
        )
    if "folds" in original.tags:
        raise RequestError(
            f"run {original.run_id} ({original.name}) trained {original.tags['folds']} folds as a trial of a "
            "sweep, which is no single run to repeat: `darkroom train` with its seed and values, and with "
            "data.folds and data.fold, trains any of them again"
        )
    if original.status != "FINISHED":
        pruned = original.tags.get("pruned") == "true"
        way = "a pruned trial has no end to compare" if pruned else "darkroom train --resume ends it first"
        raise RequestError(f"run {original.run_id} ({original.name}) is {original.status}: {way}")
    again = rerun_at_commit if arguments.at_commit else rerun_here
    repeated = again(store, original, overrides)
    outcome = compare(original, repeated)
    repeated.set_tags({"rerun_of": original.run_id, "rerun_verdict": outcome.verdict})
    print(f"rerun of {original.run_id[:8]} ({original.name}): {outcome.verdict}")
    for line in outcome.told():
        print(f"  {line}")
    print(f"run {repeated.run_id}  ({repeated.name})")


def rerun_here(store: Store, original: RunRecord, overrides: Mapping[str, str]) -> RunRecord:
    """Trains it with the code and packages at hand, having said what is not as it was."""
    experiment = recorded_experiment(original, overrides)
    if not experiment.mlflow.enabled:
        raise RequestError("a rerun is compared by its record: mlflow.enabled must be true")
    run_name = f"rerun of {original.name}"
    # A trial of a sweep never saw test, and does not now.
    tested = any(name.startswith("test/") for name in original.metrics)
    with recorded_threads(original):
        prepare(experiment)
        tell(repairs_told(original) + changed_conditions(original) + changed_data(original, experiment))
        experiment = replace(experiment, mlflow=replace(experiment.mlflow, run_name=run_name))
        result = train(experiment, store, tags={"rerun_of": original.run_id}, tested=tested)
    assert result.record is not None
    return store.run(result.record.run_id)


def rerun_at_commit(store: Store, original: RunRecord, overrides: Mapping[str, str]) -> RunRecord:
    """Trains it with the recorded code, in a worktree of its own, and the packages at hand.

    Raises:
        RequestError: The code was not recorded, or is not available; or the run is a sweep's trial.
        RunError: The training failed.
    """
    if not any(name.startswith("test/") for name in original.metrics):
        raise RequestError("--at-commit runs `darkroom train`, which would test: this run never was tested")
    tell(changed_conditions(original, code=False) + images_at_hand(original, overrides))
    config = original.download("config.yaml")
    with checkout(original) as code:
        print(f"training with the code of commit {original.tags['git_commit'][:12]} in {code.folder}")
        if "source_digest" in original.tags:  # files that git did not know of are in no diff
            recorded = original.read_text("environment/sources.txt")
            for change in source_changes(recorded, source_files(code.folder)):
                print(f"changed: {change.partition('; ')[0]}, in new files that git did not track")
        keys = [f"--{key}={value}" for key, value in {**recorded_weights(original), **overrides}.items()]
        keys.append(f"--mlflow.run_name=rerun of {original.name}")
        command = [sys.executable, "-P", "-m", code.module, "train", str(config), *keys]
        # -P: the code that lies in the folder one stands in must not come first.
        number = str(num_recorded_threads(original))
        threads = {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}  # torch takes MKL's, where it has it
        print(f"threads: {number}, as the run recorded")
        process = subprocess.Popen(
            command, env={**os.environ, **threads, **code.environment}, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            print(line, end="", flush=True)
        if process.wait() != 0:
            raise RunError(
                f"the recorded code ended with exit status {process.returncode}; it said why above"
            )
    run_id = next(line.split()[1] for line in reversed(said) if line.startswith("run "))
    return store.run(run_id)


def images_at_hand(original: RunRecord, overrides: Mapping[str, str]) -> list[str]:
    """What has changed of the images that the recorded code is to train on.

    The present code reads them, and divides them by its own rules.

    Raises:
        RequestError: They are not available.
    """
    try:
        experiment = recorded_experiment(original, overrides)
    except RequestError as error:  # of keys that the present code does not know any more, or not yet
        return [f"perhaps the data: the present code can't read the recorded configuration ({error})"]
    return changed_images(original, experiment.load_data())


def tell(changes: Sequence[str]) -> None:
    """What is not as it was, before the run begins."""
    if not changes:
        print("packages, hardware, code and data are those of the original")
    for change in changes:
        print(f"changed: {change}")


# What came of it --------------------------------------------------------------------------------


def compare(original: RunRecord, repeated: RunRecord) -> RunDifference:
    """Metrics epoch by epoch, the chosen checkpoint's metrics, and its weights."""
    before, now = original.history(), repeated.history()
    epochs = sorted(before.keys() & now.keys() - {0})
    first, metric, by = first_difference(before, now)
    final = largest_difference(original.metrics, repeated.metrics, ("best/", "test/"))
    if original.is_trial:  # of which the sweep keeps no weights
        return RunDifference(len(epochs), first, metric, by, final, 0.0, 0)
    weights = [state_dict(run.download("checkpoints/best.ckpt")) for run in (original, repeated)]
    num_weights = sum(tensor.numel() for tensor in weights[0].values())
    return RunDifference(len(epochs), first, metric, by, final, weight_difference(*weights), num_weights)


def first_difference(
    before: Mapping[int, Mapping[str, float]], now: Mapping[int, Mapping[str, float]]
) -> tuple[int | None, str, float]:
    """The first epoch at which a metric differs, the one that does most for its size, and how much.

    >>> first_difference({1: {"lr": 0.5}, 2: {"lr": 0.25}}, {1: {"lr": 0.5}, 2: {"lr": 0.125}})
    (2, 'lr', 0.125)
    """
    for epoch in sorted(before.keys() | now.keys()):
        old, new = before.get(epoch, {}), now.get(epoch, {})
        names = [name for name in old.keys() | new.keys() if name.startswith(COMPARED)]
        apart = {name: _apart(old.get(name), new.get(name)) for name in sorted(names)}
        if any(apart.values()):
            metric = max(apart, key=lambda name: apart[name] / max(abs(old.get(name, 0.0)), 1e-12))
            return epoch, metric, apart[metric]
    return None, "", 0.0


def largest_difference(
    before: Mapping[str, float], now: Mapping[str, float], prefixes: tuple[str, ...]
) -> float:
    """Among the metrics that begin so; infinite where one of the two lacks one."""
    names = {name for name in before.keys() | now.keys() if name.startswith(prefixes)} - {"best/epoch"}
    return max((_apart(before.get(name), now.get(name)) for name in names), default=0.0)


def weight_difference(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """The largest difference of two state dicts' numbers; infinite where they hold other tensors.

    >>> weight_difference({"w": Tensor([1.0, 2.0])}, {"w": Tensor([1.0, 2.5])})
    0.5
    """
    if {name: each.shape for name, each in before.items()} != {n: each.shape for n, each in now.items()}:
        return math.inf
    return max(float((before[name].double() - now[name].double()).abs().max()) for name in before)


def state_dict(checkpoint: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read_checkpoint(checkpoint)["state_dict"]
    return weights


def _apart(before: float | None, now: float | None) -> float:
    if before is None or now is None:
        return math.inf
    if before == now or (math.isnan(before) and math.isnan(now)):
        return 0.0
    return abs(before - now)
