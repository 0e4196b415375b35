"""Checks data, network and search options before a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config.experiment import Experiment
from ..config.folds import fold_selection_note, load_fold
from ..config.keys import flatten
from ..errors import RequestError
from ..training.checks import check_is_defined
from ..training.setup import prepare
from .study.samplers_and_pruners import check_options


def prepare_sweep(experiment: Experiment, sources: Sequence[str], overrides: Mapping[str, str]) -> list[str]:
    """Makes network and data as the winner will have them, and the folds of trials that are trained on folds.

    Returns:
        What a user may not expect, in sentences.

    Raises:
        RequestError: The data or the network is not available, or trials or winner would not be judged.
    """
    assert experiment.sweep is not None
    check_options(experiment.sweep)
    folds = experiment.sweep.folds
    if folds is not None:
        _check_division(experiment, overrides)
    prepare(experiment)
    try:
        check_is_defined({"sweep.metric": experiment.sweep.metric}, experiment.data)
    except ValueError as error:
        raise RequestError(str(error)) from error
    judged = "val" in experiment.data.splits
    if folds is None:
        if not judged:
            raise RequestError("a sweep is judged on validation images: data.val_fraction must be above 0")
        return experiment.data.notes
    trainer = experiment.trainer
    if not judged and (trainer.monitor is not None or trainer.early_stopping is not None):
        raise RequestError(
            "each fold has validation images that choose its epoch, and the winner would have none: "
            "data.val_fraction must be above 0, or trainer.monitor=null and trainer.early_stopping=null, "
            "with which all of them train to the last epoch"
        )
    load_fold(sources, overrides, folds, 0).load_data()  # which looks at all of the folds
    note = (
        f"each trial is trained {folds} times, and judged once on each fold of the training images; the "
        "winner trains on the recipe's own split"
    )
    return [*experiment.data.notes, note, *([told] if (told := fold_selection_note(trainer)) else [])]


def _check_division(experiment: Experiment, overrides: Mapping[str, str]) -> None:
    configured = flatten(experiment.config)
    assert experiment.sweep is not None
    for key in ("data.folds", "data.fold"):
        if configured[key] or key in overrides:
            raise RequestError(
                f"{key} can't be given with sweep.folds={experiment.sweep.folds}, which has each fold be a "
                "trial's validation images once; data.val_fraction says what the winner is validated on"
            )
