"""Overrides that select one cross-validation fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .experiment import Experiment, load_experiment
from .trainer_settings import TrainerSettings


def load_fold(sources: Sequence[str], overrides: Mapping[str, str], folds: int, fold: int) -> Experiment:
    """The experiment of one fold, as `darkroom train` would have it with these keys."""
    return load_experiment(sources, {**overrides, **fold_keys(folds, fold)})


def fold_keys(folds: int, fold: int) -> dict[str, str]:
    """The overrides that make one of the folds the validation images.

    >>> fold_keys(5, 2)
    {'data.folds': '5', 'data.fold': '2'}
    """
    return {"data.folds": str(folds), "data.fold": str(fold)}


def fold_selection_note(trainer: TrainerSettings) -> str | None:
    """A note, where the images that judge a fold have chosen its epoch too."""
    if trainer.monitor is None and trainer.early_stopping is None:
        return None
    return (
        "a fold's validation images choose its epoch, which flatters their mean; they choose nothing with "
        "trainer.monitor=null and trainer.early_stopping=null"
    )
