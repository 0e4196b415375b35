"""A study goes on with other settings only where its earlier trials stay what they were."""

from __future__ import annotations

import optuna
import pytest

from darkroom.experiments.config.experiment import parse_experiment
from darkroom.experiments.config.keys import flatten
from darkroom.experiments.errors import RequestError
from darkroom.experiments.sweep.study.storage import open_storage
from darkroom.experiments.sweep.study.study import (
    SearchPlan,
    changed_keys,
    grid_trials,
    is_extension,
    open_study,
)
from darkroom.experiments.sweep.study.trials import counted_trials

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


# What an extended study tries first ----------------------------------------------------------------


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")


def opened(storage, sweep: str, extend: bool = False) -> tuple[optuna.Study, SearchPlan]:
    text = f"name: x/y\ndata: Digits\nmodel: ImageClassifier\nsweep: {{{sweep}}}"
    experiment = parse_experiment([text], {})
    study = open_study(experiment, "x/y", storage, extend)
    return study, SearchPlan(study, experiment.sweep, seed=0, total=9)


def tried(study: optuna.Study, search: SearchPlan, count: int) -> list[dict[str, object]]:
    """The values of the next trials that the space admits."""
    found = []
    while len(found) < count:
        trial = study.ask()
        if search.draw(trial):
            study.tell(trial, 0.5)
            found.append(trial.params)
        else:
            trial.set_user_attr("infeasible", True)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return found


def test_an_extended_study_tries_new_starting_points_and_none_again(storage):
    space = "space: {data.batch_size: {low: 1, high: 1000}}"
    study, search = opened(storage, f"start: [{{data.batch_size: 7}}], {space}")
    known = tried(study, search, 2)
    assert known[1] == {"data.batch_size": 7}
    more = f"start: [{{data.batch_size: 7}}, {{data.batch_size: 9}}], {space}"
    with pytest.raises(RequestError, match="--extend"):
        opened(storage, more)
    study, search = opened(storage, more, extend=True)
    assert len(study.get_trials(states=[optuna.trial.TrialState.WAITING])) == 1
    assert tried(study, search, 1) == [{"data.batch_size": 9}]


@pytest.mark.filterwarnings("ignore:Fixed parameter")
@pytest.mark.parametrize("begun", [1, 3])
def test_an_extended_grid_is_searched_to_its_new_end(storage, begun):
    study, search = opened(storage, "sampler: grid, space: {data.batch_size: {low: 1, high: 3}}")
    known = [params["data.batch_size"] for params in tried(study, search, begun)]
    assert grid_trials(study, search.settings) == 3
    moved = "sampler: grid, space: {data.batch_size: {low: 2, high: 5}}"
    study, search = opened(storage, moved, extend=True)
    missing = {2, 3, 4, 5} - {*known}
    assert grid_trials(study, search.settings) == begun + len(missing)
    values = [params["data.batch_size"] for params in tried(study, search, len(missing))]
    assert sorted(values) == sorted(missing)
    assert grid_trials(study, search.settings) == len(counted_trials(study))
