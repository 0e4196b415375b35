"""Samplers search, and pruners judge, as Optuna's own do."""

from __future__ import annotations

import math
import random

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from darkroom.experiments.config.search_space.dimension import Dimension
from darkroom.experiments.config.search_space.settings import SweepSettings
from darkroom.experiments.config.search_space.space import suggest
from darkroom.experiments.sweep.study.samplers_and_pruners import build_pruner, build_sampler, should_prune

NUMBERS = {
    "a": Dimension(low=1e-4, high=1.0, log=True),
    "b": Dimension(low=0, high=20),
    "c": Dimension(low=0.0, high=1.0, step=0.05),
}
MIXED = {
    **NUMBERS,
    "d": Dimension(choices=["x", [1, 2], None]),
    "e": Dimension(low=0.0, high=1.0, when={"d": ["x", None]}),
}
MAX_EPOCHS = 27
PRUNERS = {
    "median": {},
    "percentile": {"percentile": 60.0},
    "halving": {},
    "hyperband": {},
    "patient": {"patience": 2},
    "wilcoxon": {},
    "none": {},
}


@pytest.fixture(autouse=True)
def _quiet():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


def searched(settings: SweepSettings, seed: int, trials: int) -> list[FrozenTrial]:
    """The trials of a search for a = 0.01, b = 15, c = 0.3."""
    study = optuna.create_study(sampler=build_sampler(settings, seed))
    for _ in range(trials):
        trial = study.ask()
        values = suggest(trial, settings)
        distance = (
            (math.log10(values["a"]) + 2) ** 2 + (values["b"] / 10 - 1.5) ** 2 + (values["c"] - 0.3) ** 2
        )
        study.tell(trial, distance)
    return study.trials


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "cmaes", "nsga2"])
def test_a_sampler_proposes_the_same_to_the_same_seed_and_within_the_space(sampler):
    settings = SweepSettings(NUMBERS if sampler == "cmaes" else MIXED, sampler=sampler, trials=10)
    trials = searched(settings, seed=2**40 + 1, trials=10)
    again = searched(settings, seed=2**40 + 1, trials=10)
    assert [trial.params for trial in trials] == [trial.params for trial in again]
    for trial in trials:
        for name, value in trial.params.items():
            dimension = settings.space[name]
            assert dimension.takes(value) or value in dimension.options
    assert len({trial.params["a"] for trial in trials}) > 4


LEARNING = [("tpe", 60), pytest.param("gp", 20, marks=pytest.mark.slow), ("cmaes", 60), ("nsga2", 80)]


@pytest.mark.parametrize(("sampler", "trials"), LEARNING)
def test_a_sampler_that_learns_ends_nearer_than_it_began(sampler, trials):
    settings = SweepSettings(NUMBERS, sampler=sampler, trials=trials)
    values = [trial.value for trial in searched(settings, 0, trials)]
    assert sum(values[-6:]) < 0.6 * sum(values[:6])


def test_options_reach_optuna_and_win_over_the_defaults():
    values = [0.1, 0.5, 0.9]
    study = optuna.create_study(pruner=build_pruner(SweepSettings(pruner="median"), 10))
    for value in values:
        study.add_trial(optuna.trial.create_trial(value=value, intermediate_values={1: value, 3: value}))
    trial = study.ask()
    trial.report(0.8, 1)
    assert not trial.should_prune()  # its first fifth
    trial.report(0.8, 3)
    assert trial.should_prune()
    patient = SweepSettings(pruner="median", pruner_options={"n_startup_trials": 4})
    study.pruner = build_pruner(patient, 10)
    assert not trial.should_prune()


@pytest.mark.parametrize(("max_epochs", "judged"), [(27, [3, 9, 27]), (30, [3, 9, 27]), (5, [1, 3])])
def test_halving_judges_at_a_ninth_and_a_third_of_the_epochs(max_epochs, judged):
    study = optuna.create_study(pruner=build_pruner(SweepSettings(pruner="halving"), max_epochs))
    trial = study.ask()
    seen = []
    for epoch in range(1, max_epochs + 1):
        trial.report(0.5, epoch)
        before = len(study.get_trials()[0].system_attrs)
        trial.should_prune()
        if len(study.get_trials()[0].system_attrs) > before:
            seen.append(epoch)
    assert seen == judged


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_with_several_objectives_a_pruner_decides_as_with_one(pruner, direction):
    """Two studies of the same curves, three trials at a time, until one of them is stopped or done."""
    settings = SweepSettings(
        pruner=pruner, pruner_options=PRUNERS[pruner], folds=MAX_EPOCHS if pruner == "wilcoxon" else None
    )
    one = optuna.create_study(
        study_name="curve", direction=direction, pruner=build_pruner(settings, MAX_EPOCHS)
    )
    several = optuna.create_study(directions=[direction, "minimize"])
    judge = build_pruner(settings, MAX_EPOCHS)
    generator = random.Random(pruner)
    decisions = []
    running: list[tuple[optuna.Trial, optuna.Trial, dict[int, float], float]] = []
    while len(one.trials) < 30 or running:
        while len(running) < 3 and len(one.trials) < 30:
            running.append((one.ask(), several.ask(), {}, generator.random()))
        chosen = generator.choice(running)
        single, multiple, curve, level = chosen
        epoch = len(curve) + 1
        accuracy = level * (1 - 0.5**epoch) + 0.1 * generator.random()
        curve[epoch] = accuracy if direction == "maximize" else 1 - accuracy
        single.report(curve[epoch], epoch)
        multiple.set_user_attr("curve", curve)
        expected = single.should_prune()
        frozen = several.get_trials(deepcopy=False)[multiple.number]
        assert should_prune(judge, several.get_trials(deepcopy=False), frozen, direction) == expected
        decisions.append(expected)
        if expected:
            one.tell(single, state=TrialState.PRUNED)
            several.tell(multiple, state=TrialState.PRUNED)
        elif epoch == MAX_EPOCHS:
            one.tell(single, curve[epoch])
            several.tell(multiple, [curve[epoch], 1.0])
        if expected or epoch == MAX_EPOCHS:
            running.remove(chosen)
    assert any(decisions) == (pruner != "none")
    assert not all(decisions)


def test_epochs_that_a_storage_gave_back_as_text_are_numbers_again(tmp_path):
    study = optuna.create_study(
        directions=["maximize", "minimize"], storage=f"sqlite:///{tmp_path / 'optuna.db'}"
    )
    for level in (0.7, 0.8, 0.9, 0.1):
        trial = study.ask()
        trial.set_user_attr("curve", dict.fromkeys(range(1, 12), level))
        if level > 0.5:
            study.tell(trial, [level, 1.0])
    pruner = build_pruner(SweepSettings(), 20)
    assert should_prune(pruner, study.trials, study.trials[3], "maximize")
    assert not should_prune(pruner, study.trials[:3], study.trials[2], "maximize")
