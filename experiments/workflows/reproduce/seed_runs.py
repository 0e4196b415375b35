"""Runs for each seed of a claim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ...config.experiment import Experiment, load_experiment
from ...config.hardware_defaults import OPEN_KNOBS, is_open
from ...config.identity import configuration
from ...errors import RequestError
from ...tracking.record_version import former_values, is_outdated, version_label
from ...tracking.recorded_experiment import parse_recorded
from ...tracking.run import RunRecord
from ...tracking.store import Store
from ...training.checks import HEAD_ALONE
from ...training.result import Result
from ...training.run import train
from ..child_runs import finish_child

Budget = Literal["smoke", "mini", "full"]
SMOKE_BATCHES = 5  # enough to fall over


@dataclass(frozen=True)
class Seed:
    """One seed of a recipe and its run.

    Attributes:
        number: The seed.
        run: As it is recorded once it has finished.
        seconds: What its epochs took, of whichever machines trained them.
    """

    number: int
    run: RunRecord
    seconds: float


def load_recipe(name: str, overrides: Mapping[str, str], budget: Budget) -> Experiment:
    """The recipe, or a fraction of it, as the budget has it; its overrides hold the fraction's too.

    Raises:
        RequestError: It claims nothing, or its runs are not recorded.
    """
    experiment = load_experiment([name], overrides)
    if experiment.claim is None or not experiment.claim.metrics:
        raise RequestError(f"{name} has no claim: there is nothing to hold a reproduction against")
    if not experiment.mlflow.enabled:
        raise RequestError("a reproduction is read from its record: mlflow.enabled must be true")
    return load_experiment([name], {**overrides, **fraction(experiment, budget)})


def fraction(experiment: Experiment, budget: Budget) -> dict[str, str]:
    """The keys that make less of a recipe: an epoch of a few batches, or a tenth of its epochs.

    One more where the first would train the head alone; warm-up and the head's own epochs shrink too.
    """
    if budget == "full" or experiment.trainer.max_epochs == 0:
        return {}
    whole, model = experiment.trainer.max_epochs, experiment.model
    part = math.ceil(whole / 10) if budget == "mini" else 1
    keys = {}
    if (waits := HEAD_ALONE.get(model.finetuning.strategy)) is not None:
        epochs = max(1, getattr(model.finetuning, waits) * part // whole)
        part = max(part, epochs + 1)
        keys[f"model.finetuning.{waits}"] = str(epochs)
    if model.hparams["warmup_epochs"] > part:
        keys["model.warmup_epochs"] = str(part)
    keys["trainer.max_epochs"] = str(part)
    if budget == "smoke":
        extra = {**(experiment.trainer.extra or {}), "limit_train_batches": SMOKE_BATCHES}
        keys["trainer.extra"] = str(extra)
    return keys


def seeds_of(experiment: Experiment, budget: Budget) -> Sequence[int]:
    """The seeds that the claim names; of less than the whole of them the first alone."""
    assert experiment.claim is not None
    seeds = experiment.claim.seeds
    return seeds if budget == "full" else seeds[:1]


def run_seeds(
    name: str,
    experiment: Experiment,
    budget: Budget,
    store: Store,
    parent: RunRecord | None = None,
    fresh: bool = False,
    train_missing: bool = True,
    any_version: bool = False,
) -> Iterator[Seed]:
    """Each of the recipe's seeds in turn: as it is recorded, continued where it was killed, else trained.

    Args:
        name: The recipe.
        experiment: What `load_recipe` made of it.
        budget: How much of it to do.
        store: Where runs are recorded.
        parent: The run of the reproduction, below which new ones are shown.
        fresh: Train all of them, whatever is recorded.
        train_missing: Train what is not recorded; otherwise leave it out.
        any_version: Count runs of older record versions too.
    """
    known = [] if fresh else list(recorded_runs(experiment, store))
    outdated = [] if any_version else [run for run in known if is_outdated(run.tags)]
    if outdated:
        known = [run for run in known if run not in outdated]
        labels = ", ".join(sorted({version_label(run.tags) for run in outdated}))
        print(
            f"{name}: not counted are {len(outdated)} runs of record version {labels}: later repairs change "
            "numbers (--any-version counts them)",
            flush=True,
        )
    for seed in seeds_of(experiment, budget):
        of_seed = [run for run in known if run.params["seed"] == str(seed)]
        if not train_missing and all(run.status != "FINISHED" for run in of_seed):
            continue
        begin = partial(_train_seed, name, experiment, seed, store, parent, budget)
        yield _timed(seed, finish_child(of_seed, store, f"{name}, seed {seed}", begin))


def recorded_runs(experiment: Experiment, store: Store) -> Iterator[RunRecord]:
    """Runs of this very configuration, whatever their seed, the newest first.

    What the experiment leaves to the machine may be anything.
    Those that train at present, or were killed without a word, are RUNNING and not among them.
    """
    wanted = configuration(experiment.config)
    left_open = [f"trainer.{knob}" for knob in OPEN_KNOBS if is_open(wanted[f"trainer.{knob}"])]
    for run in store.runs_of(experiment.name):
        if run.status == "RUNNING" or not run.is_training or "study" in run.tags:
            continue
        if run.params.get("seed") is None:
            continue
        try:
            recorded = parse_recorded(run, {})
        except RequestError:  # of an older version, with keys that are no more; or it ended too early
            continue
        found = configuration(recorded.config)
        # What a repair changed is no difference of the recipe: the run's version tells it.
        same = {
            key: wanted[key] for key in (*left_open, *former_values(run.tags, run.params)) if key in wanted
        }
        if found | same == wanted:
            yield run


def _train_seed(
    name: str, experiment: Experiment, seed: int, store: Store, parent: RunRecord | None, budget: Budget
) -> Result:
    seeded = load_experiment([name], {**experiment.overrides, "seed": str(seed)})
    return train(seeded, store, parent=parent, tags={"budget": budget})


def _timed(number: int, run: RunRecord) -> Seed:
    seconds = sum(row["epoch_seconds"] for row in run.history(["epoch_seconds"]).values())
    return Seed(number, run, seconds)
