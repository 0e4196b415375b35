"""Judges pretrained weights on a data set without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..config.experiment import Experiment, load_experiment
from ..errors import RequestError

UNTRAINED = {"trainer.max_epochs": "0", "trainer.monitor": "null", "trainer.early_stopping": "null"}


def load_untrained(sources: Sequence[str], overrides: Mapping[str, str]) -> Experiment:
    """An experiment of no epochs, whatever it trains otherwise; it can be rerun and reproduced.

    Raises:
        RequestError: A file, key, type or value is wrong.
    """
    if "trainer.max_epochs" in overrides:
        raise RequestError("--untrained trains nothing: leave out trainer.max_epochs")
    experiment = load_experiment(sources, {**UNTRAINED, **overrides})
    return replace(experiment, overrides=dict(overrides))  # by which its run is named
