"""Runs that differ only in seed or fold, as one group; and in what the groups differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median
from typing import Any

import numpy as np

from ...config.identity import INERT
from ...errors import RequestError
from ...evaluation.array_types import Floats
from ...evaluation.stored_predictions import StoredPredictions, union_of_ids
from ...tracking.prediction_artifacts import read_outcome
from ...tracking.record_version import version_label
from ...tracking.recorded_experiment import with_later_keys
from ...tracking.run import RunRecord

# Keys that don't make another configuration, and params that follow from configuration and data.
FREE = ("seed", "data.seed", "data.fold", *INERT)
DERIVED = ("task", "num_classes", "image_shape", "num_parameters", "num_train_images", "steps_per_epoch")
FINGERPRINT = "data (fingerprint)"
CODE = "code (commit)"
VERSION = "record version"


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run with all that is read of it, once.

    Attributes:
        run: As it is recorded.
        outcome: What it said of each image.
        value: The metric that is compared.
        class_names: Of the data.
        fingerprints: Of the data's parts, such as train and test.
        history: The curves by metric, each of (epoch, value) pairs.
    """

    run: RunRecord
    outcome: StoredPredictions
    value: float
    class_names: tuple[str, ...]
    fingerprints: Mapping[str, str]
    history: Mapping[str, Sequence[tuple[int, float]]]

    @cached_property
    def code(self) -> str:
        """The commit that made it, and a hash of what was not committed.

        Outside of a checkout a digest of Darkroom's sources; a dash for older records, which have none.
        """
        commit, digest = self.run.tags.get("git_commit"), self.run.tags.get("source_digest")
        if commit is None:
            return f"sources {digest[:8]}" if digest else "-"
        commit = commit[:8]
        if self.run.tags.get("git_dirty") != "true":
            return commit
        if digest:
            return f"{commit} + {digest[:4]}"
        diff = self.run.read_text("environment/uncommitted.diff")
        # New files that git does not know are in no diff.
        return f"{commit} + {hashlib.blake2b(diff.encode(), digest_size=2).hexdigest() if diff else 'files'}"

    @property
    def replicate(self) -> tuple[str, str]:
        """Seed and fold."""
        return self.run.params.get("seed", ""), self.run.params.get("data.fold", "0")

    @property
    def seconds(self) -> float:
        """What its epochs took."""
        return sum(value for _, value in self.history["epoch_seconds"])

    @property
    def images_per_second(self) -> float | None:
        """Trained on in its median epoch, validation included; None where nobody counted."""
        images, epochs = self.run.params.get("num_train_images"), self.history["epoch_seconds"]
        if images is None or not epochs:
            return None
        return float(images) / median(value for _, value in epochs)


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one configuration.

    Attributes:
        name: A letter, in the order of the ranking.
        members: By seed and fold.
        differing: Its values of the keys in which groups differ.
    """

    name: str
    members: tuple[ComparedRun, ...]
    differing: Mapping[str, str]

    @property
    def label(self) -> str:
        """In what it differs, in short: the last words of keys, as a run's name has them."""
        if "name" in self.differing:
            return self.differing["name"]
        varied = [
            f"{key.rpartition('.')[2]}={value}"
            for key, value in self.differing.items()
            if value not in ("-", "{}") and key not in (FINGERPRINT, CODE)
        ]
        return " ".join(varied) or self.members[0].run.params.get("name", self.members[0].run.name)

    @property
    def label_tells_all(self) -> bool:
        """Whether the label names each key in which groups differ."""
        return not self.differing.keys() & {"name", FINGERPRINT, CODE}

    @property
    def code(self) -> str:
        """By which code its runs were made."""
        return ", ".join(sorted({member.code for member in self.members}))

    @property
    def values(self) -> list[float]:
        """The metric of each run."""
        return [member.value for member in self.members]

    @property
    def folds(self) -> int | None:
        """k, where the runs are several folds of a cross-validation."""
        several = len({member.replicate[1] for member in self.members}) > 1
        return int(self.members[0].run.params["data.folds"]) if several else None

    @cached_property
    def images(self) -> dict[str, bytes]:
        """Targets by id, of all images that any of the runs judged."""
        return {
            name: target.tobytes()
            for member in self.members
            for name, target in zip(member.outcome.ids.tolist(), member.outcome.targets, strict=True)
        }

    @cached_property
    def right(self) -> Floats:
        """Which share of the runs that judged an image are right about it, by id, (N,)."""
        ids, places = union_of_ids([member.outcome for member in self.members])
        total, count = np.zeros(len(ids)), np.zeros(len(ids))
        for member, where in zip(self.members, places, strict=True):
            total[where] += member.outcome.right()
            count[where] += 1
        return total / count

    @property
    def num_parameters(self) -> int:
        return int(self.members[0].run.params["num_parameters"])

    @property
    def seconds(self) -> float:
        """What a run took, the median."""
        return median(member.seconds for member in self.members)

    @property
    def images_per_second(self) -> float | None:
        known = [rate for member in self.members if (rate := member.images_per_second) is not None]
        return median(known) if known else None


def read_member(run: RunRecord, split: str, metric: str) -> ComparedRun:
    """All that is compared of a run.

    Raises:
        RequestError: It lacks predictions of that split, or the metric.
    """
    recorded = (
        f"{'best' if split == 'val' else split}/{metric}"  # the chosen checkpoint's, not the last epoch's
    )
    if recorded not in run.metrics:
        raise RequestError(f"run {run.run_id} has no metric {recorded}")
    outcome = read_outcome(run, split)
    facts: dict[str, Any] = json.loads(run.read_text("data/facts.json"))
    names = [name for name in curve_names(metric) if name in run.metrics]
    rows = run.history(names)
    return ComparedRun(
        run,
        outcome,
        run.metrics[recorded],
        tuple(facts["class_names"]),
        facts["fingerprint"],
        {name: [(epoch, row[name]) for epoch, row in sorted(rows.items()) if name in row] for name in names}
        | ({} if "epoch_seconds" in names else {"epoch_seconds": []}),
    )


def curve_names(metric: str) -> list[str]:
    """What is read of each epoch."""
    return ["epoch_seconds", "train/loss", *dict.fromkeys(["val/loss", f"val/{metric}"])]


def group_members(
    members: Sequence[ComparedRun], minimized: bool, any_version: bool = False
) -> tuple[list[Group], list[str]]:
    """Groups, the best mean first; and a word on runs that repeat a seed, which are no further evidence.

    Runs of different record versions are no seeds of one configuration, unless `any_version` asks for it.
    """
    found: dict[tuple[tuple[str, str], ...], dict[tuple[str, str], ComparedRun]] = {}
    repeated = []
    for member, configuration in zip(members, configurations(members), strict=True):
        if not any_version:
            configuration[VERSION] = version_label(member.run.tags)
        seeds = found.setdefault(tuple(sorted(configuration.items())), {})
        if member.replicate in seeds:
            repeated.append(member.run)
        else:
            seeds[member.replicate] = member
    sets = [(dict(key), tuple(sorted(seeds.values(), key=_by_number))) for key, seeds in found.items()]
    sign = 1 if minimized else -1
    sets.sort(key=lambda each: sign * fmean(member.value for member in each[1]))
    differing = differing_keys([configuration for configuration, _ in sets])
    groups = [
        Group(letter(place), each, {key: configuration.get(key, "-") for key in differing})
        for place, (configuration, each) in enumerate(sets)
    ]
    if len({group.code for group in groups}) > 1:
        groups = [replace(each, differing={**each.differing, CODE: each.code}) for each in groups]
    if not repeated:
        return groups, []
    named = ", ".join(run.run_id[:8] for run in repeated[:5]) + (", ..." if len(repeated) > 5 else "")
    words = "1 run that repeats" if len(repeated) == 1 else f"{len(repeated)} runs that repeat"
    return groups, [f"left out: {words} configuration and seed of another ({named})"]


def configurations(members: Sequence[ComparedRun]) -> list[dict[str, str]]:
    """What each has in common with the other seeds and folds of its configuration."""
    found = []
    for member, params in zip(members, with_later_keys([each.run for each in members]), strict=True):
        kept = {
            key: value
            for key, value in params.items()
            if key not in (*FREE, *DERIVED) and not key.startswith("mlflow")
        }
        text = json.dumps(member.fingerprints, sort_keys=True)
        kept[FINGERPRINT] = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        found.append(kept)
    return found


def differing_keys(configurations: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys that don't have the same value everywhere, or are missing somewhere.

    >>> differing_keys([{"lr": "0.1", "seed": "0"}, {"lr": "0.2", "seed": "0", "momentum": "0.9"}])
    ['lr', 'momentum']
    """
    keys = dict.fromkeys(key for each in configurations for key in each)
    return sorted(key for key in keys if len({each.get(key) for each in configurations}) > 1)


def letter(place: int) -> str:
    """A, B, ... Z, AA, AB, ...

    >>> letter(0), letter(25), letter(26)
    ('A', 'Z', 'AA')
    """
    first = letter(place // 26 - 1) if place >= 26 else ""
    return first + chr(ord("A") + place % 26)


def _by_number(member: ComparedRun) -> tuple[int, int]:
    seed, fold = member.replicate
    return int(seed or 0), int(fold)
