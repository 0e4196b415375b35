"""`darkroom train --boost`: a sequence of networks, each drawn to what those before it got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from darkroom.lightning_modules.predictor import WeightedVotes

from ...config.experiment import Experiment, load_experiment
from ...config.identity import keys_that_matter
from ...errors import RequestError, RunError
from ...evaluation.array_types import Floats
from ...evaluation.predictions import split_frame
from ...tracking.prediction_artifacts import read_outcome
from ...tracking.run import RunRecord
from ...tracking.run_lifecycle import recording
from ...tracking.store import Store, open_store
from ...training.loop import evaluate
from ...training.restore import restore
from ...training.result import Result
from ...training.run import run_name, train
from ...training.setup import prepare
from ...training.trainer import check_trains_here
from ..child_runs import exclusive, find_unfinished, fingerprint, finish_child
from .artifacts import describe, record_ensemble
from .blending import as_outcome, vote
from .members import SPLITS, chosen_metric, read_members
from .report import judge, show
from .samme import reweighted, vote_of, weighted_error

DRAWING = ("data.sample_weights", "data.bootstrap")  # keys that boosting takes the place of
ROLE = "boosted"  # of a member


@dataclass(frozen=True)
class Boosted:
    """A member of the sequence.

    Attributes:
        run: As it is recorded.
        error: The share of its training images' weight that it got wrong.
        vote: How much it counts.
    """

    run: RunRecord
    error: float
    vote: float


def boost(sources: Sequence[str], overrides: Mapping[str, str], count: int) -> None:
    """Trains what is missing of the sequence, and records the ensemble of all as one predictor.

    Args:
        sources: Recipes' names or YAML files, the last wins.
        overrides: The command line's keys.
        count: Members; fewer where one leaves nothing to boost.

    Raises:
        RequestError: It can't be boosted, or another process is at it; nothing was started.
        RunError: A member's training failed, or members are too good or too bad to be boosted.
        Interrupted: Ctrl-C; what is done is kept.
    """
    experiment = load_boosted(sources, overrides, count)
    store = open_store()
    parent = begin(experiment, store, overrides, count)
    with exclusive(parent, "boosting"), recording(parent, to_continue="the same command again"):
        store.continue_run(parent)
        sequence = train_sequence(experiment, sources, overrides, count, store, parent)
        conclude(experiment, parent, sequence)


def load_boosted(sources: Sequence[str], overrides: Mapping[str, str], count: int) -> Experiment:
    """The experiment of the first member, with its data.

    Raises:
        RequestError: It can't be boosted.
    """
    if count < 2:
        raise RequestError(f"--boost must be at least 2 members, got {count}; 5 is customary")
    for key in DRAWING:
        if key in overrides:
            raise RequestError(f"{key} can't be given with --boost, which weighs the images of each member")
    experiment = load_experiment(sources, overrides)
    check_trains_here(experiment.trainer, "each member")
    if not experiment.mlflow.enabled:
        raise RequestError("an ensemble is made of its members' records: mlflow.enabled must be true")
    prepare(experiment)
    data = experiment.data
    if data.task == "multilabel":
        raise RequestError(
            "boosting (SAMME) is of one class an image, and here images may have several labels"
        )
    if missing := [split for split in SPLITS if split not in data.splits]:
        raise RequestError(
            f"an ensemble is judged on validation and test, and the data has no {missing[0]} images: "
            "data.val_fraction and data.test_fraction hold some out"
        )
    return experiment


def begin(experiment: Experiment, store: Store, overrides: Mapping[str, str], count: int) -> RunRecord:
    """The run of the ensemble: the one that this command left unfinished, else a new one."""
    configuration = {"boosting": True, **keys_that_matter(experiment.config)}
    tags = {"recipe": experiment.name, "role": "ensemble", "configuration": fingerprint(configuration)}
    parent = find_unfinished(store, experiment.name, tags)
    if parent is not None:
        done = sum(run.status == "FINISHED" for run in store.child_runs(parent))
        print(f"going on with run {parent.run_id[:8]}: {done} of {count} members are trained")
        return parent
    named = replace(experiment, overrides={**overrides, "boost": str(count)})
    parent = store.start_run(experiment.name, experiment.mlflow.run_name or run_name(named), tags)
    with parent.artifacts() as folder:
        (folder / "config.yaml").write_text(experiment.to_yaml())
    return parent


def train_sequence(
    experiment: Experiment,
    sources: Sequence[str],
    overrides: Mapping[str, str],
    count: int,
    store: Store,
    parent: RunRecord,
) -> list[Boosted]:
    """The members in order, as many as are any use.

    Raises:
        RunError: Fewer than two are.
    """
    ids = experiment.data.splits["train"].ids
    num_classes = len(experiment.data.class_names)
    weights: Floats = np.ones(len(ids))
    sequence: list[Boosted] = []
    for number in range(count):
        keys = {"seed": str(experiment.seed + number), "mlflow.run_name": f"member {number} of {parent.name}"}
        if number > 0:
            path = parent.checkpoint_folder / f"sample_weights_{number}.parquet"
            pd.DataFrame({"id": ids, "weight": weights}).to_parquet(path)
            keys["data.sample_weights"] = str(path)
        run = train_member(sources, {**overrides, **keys}, number, store, parent)
        wrong = training_mistakes(run, ids)
        error = weighted_error(weights, wrong)
        member = Boosted(run, error, vote_of(error, num_classes, len(ids)))
        run.log_metrics({"boosting/error": error, "boosting/vote": member.vote})
        if member.vote <= 0:
            print(f"member {number} does no better than chance on its images: the sequence ends before it")
            break
        sequence.append(member)
        if not wrong.any():
            print(f"member {number} makes no mistake on the training images: the sequence ends with it")
            break
        weights = reweighted(weights, wrong, member.vote)
    if len(sequence) < 2:
        raise RunError(
            "boosting needs members that err now and then on their training images, and less than chance "
            "does: train them shorter (trainer.max_epochs), smaller (model.backbone_options) or with more "
            "regularisation, or longer if they learned nothing"
        )
    return sequence


def train_member(
    sources: Sequence[str], keys: Mapping[str, str], number: int, store: Store, parent: RunRecord
) -> RunRecord:
    """One member: as it is recorded, continued where it was killed, else trained."""
    tags = {"role": ROLE, "member": str(number)}

    def first_time() -> Result:
        return train(load_experiment(sources, keys), store, parent=parent, tags=tags)

    return finish_child(store.child_runs(parent, tags), store, f"member {number}", first_time)


def training_mistakes(run: RunRecord, ids: Sequence[str]) -> NDArray[np.bool_]:
    """Whether a member's chosen network is wrong on each training image (N,); recorded with its run."""
    try:
        outcome = read_outcome(run, "train")
    except RequestError:
        experiment = restore(run, {})
        data = experiment.data
        data.splits["val"] = data.splits["train"]  # judged as validation images are: whole, unchanged
        predictions = evaluate(experiment, ["val"]).predictions["val"]
        with run.artifacts() as folder:
            (folder / "predictions").mkdir()
            frame = split_frame("val", predictions, data)
            frame.to_parquet(folder / "predictions" / "train.parquet")
        outcome = read_outcome(run, "train")
    right = dict(zip(outcome.ids.tolist(), outcome.right().tolist(), strict=True))
    return np.array([right[name] == 0 for name in ids])


def conclude(experiment: Experiment, parent: RunRecord, sequence: Sequence[Boosted]) -> None:
    """Has the members vote, judges what comes of it on test, and records it as any ensemble."""
    members = read_members([member.run for member in sequence])
    metric = chosen_metric(None, members[0].outcomes["val"])
    votes = np.array([member.vote for member in sequence])
    blend = vote(members, experiment, WeightedVotes((votes / votes.sum()).tolist()), {})
    said = {split: as_outcome(blend.predictions[split], experiment.data, split) for split in SPLITS}
    report = judge(members, said, blend.weights, "boosting", metric)
    describe(parent, experiment, members, "boosting", metric)
    record_ensemble(parent, experiment, blend, report)
    show(report, Console())
    print(f"run {parent.run_id}  ({parent.name})")
