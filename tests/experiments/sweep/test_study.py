"""A study goes on with other settings only where its earlier trials stay what they were."""

from __future__ import annotations

import pytest

from experiments.config import flatten, parse_experiment
from experiments.sweep.study import changed_keys, is_extension

SPACE = {
    "model.lr": "{low: 0.001, high: 0.1, log: true}",
    "model.optimizer": "{choices: [adamw, sgd]}",
    "model.warmup_epochs": "{low: 0, high: 4, when: {model.optimizer: sgd}}",
    "model.label_smoothing": "{value: 0.1}",
    "network": "{choices: {small: {model.dropout: 0.1}, large: {model.dropout: 0.2}}}",
}


def settings(space: dict[str, str], sweep: str = "") -> dict[str, object]:
    """What a study keeps of a recipe."""
    written = ", ".join(f"{name}: {dimension}" for name, dimension in space.items())
    text = f"name: x/y\ndata: Digits\nmodel: ImageClassifier\nsweep: {{{sweep} space: {{{written}}}}}"
    return flatten(parse_experiment([text], {}).config)


def extends(space: dict[str, str], sweep: str = "") -> bool:
    """Whether a study of SPACE may go on with all that differs here."""
    known, asked = settings(SPACE), settings(space, sweep)
    changed = changed_keys(known, asked)
    assert changed
    return all(is_extension(key, known, asked) for key in changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"model.lr": "{low: 0.0001, high: 0.2, log: true}"},
        {"model.warmup_epochs": "{low: 0, high: 8, step: 2, when: {model.optimizer: sgd}}"},
        {"model.weight_decay": "{low: 0.0, high: 0.1}"},
        {"mix": "{choices: {none: {}, some: {model.weight_decay: 0.1}}, when: {network: large}}"},
    ],
)
def test_ranges_may_move_and_dimensions_come(changed):
    assert extends({**SPACE, **changed})


def test_sampler_pruner_start_and_constraints_may_change():
    assert extends(SPACE, "sampler: random, pruner: none, start: [{network: large}],")
    assert extends(SPACE, "constraints: ['model.lr < 0.05'],")


@pytest.mark.parametrize("gone", ["model.lr", "model.warmup_epochs", "model.label_smoothing", "network"])
def test_a_dimension_that_goes_is_another_search(gone):
    assert not extends({name: dimension for name, dimension in SPACE.items() if name != gone})


@pytest.mark.parametrize(
    "changed",
    [
        {"model.label_smoothing": "{value: 0.2}"},
        {"model.label_smoothing": "{low: 0.0, high: 0.2}"},
        {"model.weight_decay": "{value: 0.1}"},  # earlier trials had the recipe's
        {"model.warmup_epochs": "{low: 0, high: 4, when: {model.optimizer: adamw}}"},
        {"model.warmup_epochs": "{low: 0, high: 4}"},
        {"model.warmup_epochs": "{low: 0.0, high: 5.0, when: {model.optimizer: sgd}}"},
        {"model.lr": "{low: 0.001, high: 0.1, log: true, when: {network: small}}"},
        {"model.lr": "{low: 0.001, high: 0.1}"},
        {"model.lr": "{choices: [0.001, 0.1]}"},
        {"model.optimizer": "{choices: [adamw, sgd, rmsprop]}"},
        {"network": "{choices: {small: {model.dropout: 0.1}, large: {model.dropout: 0.3}}}"},
        {"network": "{choices: {small: {model.dropout: 0.1}, large: {}}}"},
        {"network": "{choices: {small: {model.dropout: 0.1}}}"},
    ],
)
def test_what_would_give_earlier_trials_other_values_is_another_search(changed):
    assert not extends({**SPACE, **changed})


def test_what_is_measured_and_trained_is_another_search():
    assert not extends(SPACE, "metric: val/log_loss,")
    assert not extends(SPACE, "folds: 5,")
