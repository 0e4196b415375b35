"""A search space gives the points that it describes, and refuses what makes no sense."""

from __future__ import annotations

import itertools

import optuna
import pytest

from darkroom.experiments.config.experiment import parse_experiment
from darkroom.experiments.config.keys import flatten
from darkroom.experiments.config.search_space.dimension import Dimension
from darkroom.experiments.config.search_space.settings import SweepSettings
from darkroom.experiments.config.search_space.space import (
    is_feasible,
    overrides,
    probes,
    starting_points,
    suggest,
)
from darkroom.experiments.config.search_space.validation import check_sweep
from darkroom.experiments.errors import RequestError
from darkroom.experiments.sweep.study.samplers_and_pruners import check_options

RECIPE = """
name: x/y
data: Digits
model:
  class_path: ImageClassifier
  init_args: {backbone: small_cnn, backbone_options: {widths: [32, 64]}, lr: 0.003, optimizer: adamw}
"""
NETWORKS = {
    "cnn": {"model.backbone": "small_cnn"},
    "lenet": {"model.backbone": "lenet5", "model.backbone_options": {}},
}
SPACE = {
    "model.lr": Dimension(low=1e-4, high=1e-1, log=True),
    "network": Dimension(choices=NETWORKS),
    "model.backbone_options.widths": Dimension(choices=[[16, 32], [32, 64]], when={"network": "cnn"}),
    "model.label_smoothing": Dimension(value=0.1, when={"network": ["cnn", "lenet"]}),
    "data.batch_size": Dimension(low=32, high=128, step=32),
    "trainer.gradient_clip_norm": Dimension(choices=[None, 1.0]),
}


def proposed(settings: SweepSettings, trials: int = 60) -> list[optuna.trial.FrozenTrial]:
    """Trials at random, as a study has them."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        trial = study.ask()
        assert suggest(trial, settings) == trial.params
        study.tell(trial, 0.0)
    return study.trials


def parsed(sweep: str, overrides: dict[str, str] | None = None, check_space: bool = True):
    return parse_experiment([RECIPE + f"sweep: {{{sweep}}}"], overrides or {}, check_space)


# Trials --------------------------------------------------------------------------------------------


def test_a_conditional_dimension_is_drawn_exactly_where_its_condition_holds():
    trials = proposed(SweepSettings(SPACE))
    assert {trial.params["network"] for trial in trials} == {"cnn", "lenet"}
    for trial in trials:
        assert ("model.backbone_options.widths" in trial.params) == (trial.params["network"] == "cnn")


def test_what_hangs_on_an_inactive_dimension_is_inactive_too():
    space = {
        "c": Dimension(low=0, high=1, when={"b": 1}),
        "b": Dimension(low=1, high=2, when={"a": True}),
        "a": Dimension(choices=[True, False]),
    }
    seen = {tuple(sorted(trial.params)) for trial in proposed(SweepSettings(space))}
    assert seen == {("a",), ("a", "b"), ("a", "b", "c")}


def test_a_condition_may_be_one_value_that_is_a_list():
    space = {"a": Dimension(choices=[[1, 2], [3]]), "b": Dimension(low=0, high=1, when={"a": [1, 2]})}
    for trial in proposed(SweepSettings(space)):
        assert ("b" in trial.params) == (trial.params["a"] == "[1, 2]")


def test_any_trials_overrides_parse_to_the_values_it_stands_for():
    settings = SweepSettings(SPACE)
    for trial in proposed(settings, trials=8):
        experiment = parse_experiment([RECIPE], overrides(trial.params, settings))
        found = experiment.model.hparams
        assert found["lr"] == trial.params["model.lr"]
        assert found["label_smoothing"] == 0.1
        assert experiment.data.batch_size == trial.params["data.batch_size"]
        assert experiment.trainer.gradient_clip_norm == trial.params["trainer.gradient_clip_norm"]
        if trial.params["network"] == "cnn":
            assert found["backbone"] == "small_cnn"
            assert str(found["backbone_options"]["widths"]) == trial.params["model.backbone_options.widths"]
        else:
            assert found["backbone"] == "lenet5"
            assert found["backbone_options"] == {}


def test_a_whole_sub_configuration_does_not_undo_its_parts():
    space = {
        "model.backbone_options.widths": Dimension(choices=[[8], [16]]),
        "size": Dimension(choices={"any": {"model.backbone_options": {"dropout": 0.1}}}),
    }
    params = {"size": "any", "model.backbone_options.widths": "[8]"}
    assert list(overrides(params, SweepSettings(space))) == [
        "model.backbone_options", "model.backbone_options.widths",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "constraint",
    [
        "a < b",
        "a * 10 + 1 <= b - 3 / 2",
        "1 <= a < b <= 8 or w[0] == 8",
        "not (sum(w) > 20 and -a < b)",
        "a in [1, 3, 5] or len(w) == max(a, 2)",
        "w != [8] and b % 2 == 0 and a // 2 not in (1, abs(-2))",
    ],
)
def test_a_constraint_means_what_python_means_by_it(constraint):
    widths = [[8], [16, 32]]
    space = {"a": Dimension(low=0, high=5), "b": Dimension(low=0, high=50), "w": Dimension(choices=widths)}
    settings = SweepSettings(space, constraints=[constraint])
    verdicts = set()
    for a, b, w in itertools.product(range(6), range(51), widths):
        expected = eval(constraint, {"a": a, "b": b, "w": w})
        assert is_feasible({"a": a, "b": b, "w": str(w)}, settings) is expected
        verdicts.add(expected)
    assert verdicts == {True, False}


def test_a_constraint_reads_sub_configurations_and_holds_where_its_key_is_absent():
    settings = SweepSettings(SPACE, constraints=["model.backbone_options.widths[0] <= 16"])
    cnn = {"network": "cnn", "model.lr": 0.01}
    assert is_feasible({**cnn, "model.backbone_options.widths": "[16, 32]"}, settings)
    assert not is_feasible({**cnn, "model.backbone_options.widths": "[32, 64]"}, settings)
    assert is_feasible({"network": "lenet", "model.lr": 0.01}, settings)
    settings = SweepSettings(SPACE, constraints=["model.backbone != 'lenet5' or model.lr < 0.01"])
    assert is_feasible({"network": "cnn", "model.lr": 0.05}, settings)
    assert not is_feasible({"network": "lenet", "model.lr": 0.05}, settings)


# Starting points -----------------------------------------------------------------------------------


def test_the_recipes_own_values_come_first_then_start_each_once():
    settings = SweepSettings(
        SPACE,
        start=[
            {"network": "lenet", "model.lr": 0.01, "model.backbone_options.widths": [16, 32]},
            {"model.lr": 0.01, "network": "lenet"},
        ],
    )
    configured = flatten(parse_experiment([RECIPE], {}).config)
    own = {
        "model.lr": 0.003,
        "network": "cnn",
        "model.backbone_options.widths": "[32, 64]",
        "data.batch_size": configured["data.batch_size"],
        "trainer.gradient_clip_norm": None,
    }
    assert starting_points(settings, configured) == [own, {"network": "lenet", "model.lr": 0.01}]


def test_a_study_takes_starting_points_as_they_are():
    settings = SweepSettings(SPACE, start=[{"network": "lenet", "data.batch_size": 96}])
    study = optuna.create_study()
    for point in starting_points(settings, flatten(parse_experiment([RECIPE], {}).config)):
        study.enqueue_trial(point)
    first, second = suggest(study.ask(), settings), suggest(study.ask(), settings)
    assert first["model.backbone_options.widths"] == "[32, 64]"
    assert first == study.trials[0].system_attrs["fixed_params"]
    assert second.items() >= {"network": "lenet", "data.batch_size": 96}.items()


def test_the_recipes_own_values_are_left_out_where_they_break_a_constraint():
    space = {"model.lr": Dimension(low=0.0, high=1.0)}
    settings = SweepSettings(space, constraints=["model.lr > 0.5"])
    assert starting_points(settings, {"model.lr": 0.4}) == []
    assert starting_points(settings, {"model.lr": 0.6}) == [{"model.lr": 0.6}]
    assert starting_points(settings, {"model.lr": 1.6}) == []


def test_a_grid_has_every_feasible_point_once_the_wanted_first_and_always_in_one_order():
    space = {
        "a": Dimension(low=0.1, high=0.5, step=0.1),
        "b": Dimension(low=1, high=3),
        "c": Dimension(choices=["x", [1, 2]], when={"b": [1, 3]}),
    }
    settings = SweepSettings(space, sampler="grid", constraints=["a * 10 > b"], start=[{"a": 0.5, "b": 3}])
    expected = {
        (a, b, c)
        for a in (0.1, 0.2, 0.3, 0.4, 0.5)
        for b in (1, 2, 3)
        for c in (("x", "[1, 2]") if b in (1, 3) else (None,))
        if a * 10 > b
    }
    points = starting_points(settings, {"a": 0.4, "b": 2})
    assert {(point["a"], point["b"], point.get("c")) for point in points} == expected
    assert len(points) == len(expected)
    assert points[0] == {"a": 0.4, "b": 2}
    assert {(point["a"], point["b"]) for point in points[1:3]} == {(0.5, 3)}
    assert points == starting_points(settings, {"a": 0.4, "b": 2})
    assert points[3:] != sorted(points[3:], key=lambda point: (point["a"], point["b"]))


# What is refused -----------------------------------------------------------------------------------

A = {"a": Dimension(low=0, high=9), "b": Dimension(choices=["x", "y"]), "c": Dimension(low=0.0, high=1.0)}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"a": Dimension(low=0, high=1, when={"bb": "x"}), "b": A["b"]}, ["no bb", "did you mean b"]),
        ({"a": Dimension(low=0, high=1, when={"b": "z"}), "b": A["b"]}, ["b can't be 'z'", "x or y"]),
        ({"a": Dimension(low=0, high=1, when={"c": 0.5}), "c": A["c"]}, ["range of fractions", "step"]),
        (
            {"a": Dimension(low=0, high=1, when={"b": 0}), "b": Dimension(low=0, high=1, when={"a": 0})},
            ["wait for each other"],
        ),
        (
            {"model.lr": A["c"], "net": Dimension(choices={"s": {"model.lr": 0.1}})},
            ["model.lr and net set model.lr"],
        ),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(space, words):
    with pytest.raises(ValueError, match=r"^sweep\.space") as caught:
        check_sweep(SweepSettings(space))
    assert all(word in str(caught.value) for word in words), caught.value


def test_one_key_may_be_set_by_two_dimensions_that_exclude_each_other():
    presets = Dimension(choices={"fixed": {"model.lr": 0.1}, "free": {}})
    space = {"preset": presets, "model.lr": Dimension(low=0.0, high=1.0, when={"preset": "free"})}
    found = {
        overrides(trial.params, SweepSettings(space))["model.lr"] == "0.1"
        for trial in proposed(SweepSettings(space))
    }
    assert found == {True, False}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"low": 1}, "low and high"),
        ({"low": 1, "high": 2, "choices": [1]}, "one of them only"),
        ({"choices": []}, "at least one"),
        ({"choices": ["a", "a"]}, "differ"),
        ({"low": 2, "high": 1}, "below"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
        ({"low": 1, "high": 9, "step": 0.5}, "whole.*low: 1"),
        ({"low": 1, "high": 9, "step": 0}, "positive"),
        ({"choices": [1, 2], "log": True}, "range"),
        ({}, "low and high, or choices, or value"),
    ],
)
def test_a_dimension_that_is_none_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Dimension(**arguments)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metric": "test/accuracy"}, ["sweep.metric", "val/accuracy"]),
        ({"metric": "val/acuracy"}, ["sweep.metric", "did you mean accuracy"]),
        ({"objectives": ["latency"]}, ["sweep.objectives", "latency_ms"]),
        ({"objectives": ["latency_ms", "latency_ms"]}, ["differ"]),
        ({"trials": 0}, ["at least 1"]),
        ({"constraints": ["a <"]}, ["'a <' is no expression"]),
        ({"constraints": ["aa < 1"]}, ["aa", "did you mean a?"]),
        ({"constraints": ["a"]}, ["true or false", "is 0"]),
        ({"constraints": ["b < 1"]}, ["can't be computed for b='x'"]),
        ({"constraints": ["a / a > 1"]}, ["a=0", "division"]),
        ({"constraints": ["__import__('os').system('true') == 0"]}, ["may have only"]),
        ({"constraints": ["(lambda: a)() < 1"]}, ["may have only"]),
        ({"start": [{"aa": 1}]}, ["sweep.start", "did you mean a?"]),
        ({"start": [{"a": 10}]}, ["a can't be 10", "0 to 9"]),
        ({"start": [{"a": 1.5}]}, ["a can't be 1.5"]),
        ({"start": [{"b": "z"}]}, ["x or y"]),
        ({"start": [{"a": 1}], "constraints": ["a > 1"]}, ["breaks the constraint 'a > 1'"]),
        ({"sampler": "cmaes"}, ["cmaes", "b is a choice"]),
        ({"sampler": "cmaes", "objectives": ["latency_ms"]}, ["one objective", "nsga2"]),
        ({"sampler": "grid"}, ["grid", "c is a range of fractions", "step"]),
        ({"folds": 1}, ["sweep.folds must be at least 2, got 1", "null"]),
        ({"folds": 0}, ["sweep.folds must be at least 2, got 0"]),
        ({"pruner": "wilcoxon"}, ["fold by fold", "sweep.folds", "median"]),
        ({"pruner": "wilcoxon", "folds": 4}, ["no trial of sweep.folds=4", "p = 0.125 at best"]),
        (
            {"pruner": "wilcoxon", "folds": 5, "pruner_options": {"n_startup_steps": 5}},
            ["in at least 5 folds (n_startup_steps)"],
        ),
        (
            {"pruner": "wilcoxon", "folds": 5, "pruner_options": {"p_threshold": 0.06}},
            ["p = 0.0625 at best", "below 0.06 (p_threshold)"],
        ),
    ],
)  # fmt: skip
def test_a_search_that_makes_no_sense_is_refused(settings, words):
    with pytest.raises(ValueError, match=r"^sweep\.") as caught:
        check_sweep(SweepSettings(A, **settings))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pruner": "wilcoxon", "folds": 9, "pruner_options": {"p_threshold": 7}}, ["wilcoxon refuses"]),
        ({"sampler_options": {"n_startup_trial": 3}}, ["tpe has no option", "n_startup_trials"]),
        ({"sampler_options": {"seed": 3}}, ["tpe has no option seed"]),
        ({"sampler": "random", "sampler_options": {"a": 3}}, ["random has no option a; it takes none"]),
        ({"pruner": "halving", "pruner_options": {"factor": 3}}, ["no option factor", "reduction_factor"]),
        ({"pruner": "median", "pruner_options": {"n_startup_trials": -1}}, ["median refuses", "negative"]),
        ({"pruner": "none", "pruner_options": {"n": 1}}, ["it takes none"]),
    ],
)  # fmt: skip
def test_options_that_optuna_would_refuse_are_refused_before_the_search(settings, words):
    with pytest.raises(RequestError, match=r"^sweep\.") as caught:
        check_options(SweepSettings(A, **settings))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("folds", [None, 5])
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("data.fold", "on different images"),
        ("data.init_args.split_seed", "on different images"),
        ("data.val_fraction", "on different images"),
        ("data.test_fraction", "on different images"),
        ("seed", "sweep.confirm trains the best on fresh seeds"),
        ("name", "nothing to how a trial trains"),
        ("sweep.trials", "nothing to how a trial trains"),
        ("claim", "nothing to how a trial trains"),
        ("mlflow.run_name", "nothing to how a trial trains"),
    ],
)
def test_a_key_that_no_trial_could_be_compared_by_is_not_searched(key, words, folds):
    labels = {"split": Dimension(choices={"a": {key: 0}, "b": {key: 1}})}
    for space in ({key: Dimension(low=0, high=1)}, {key: Dimension(value=1)}, labels):
        with pytest.raises(ValueError, match=rf"^sweep\.space: {key} can't be searched: .*{words}"):
            check_sweep(SweepSettings(space, folds=folds))


def test_a_recipe_that_searches_its_seed_is_refused_in_one_paragraph():
    with pytest.raises(RequestError, match=r"sweep\.space: seed can't be searched") as caught:
        parsed("space: {seed: {low: 0, high: 9}}")
    assert "\n" not in str(caught.value)


def test_wilcoxon_is_taken_from_as_many_folds_on_as_can_stop_a_trial():
    assert SweepSettings(A, pruner="wilcoxon", folds=5).folds == 5
    assert SweepSettings(A, pruner="wilcoxon", folds=4, pruner_options={"p_threshold": 0.2}).folds == 4


def test_a_grid_too_large_or_empty_is_refused():
    wide = {name: Dimension(low=1, high=100) for name in "abc"}
    with pytest.raises(ValueError, match=r"1,000,000 points"):
        check_sweep(SweepSettings(wide, sampler="grid"))
    with pytest.raises(ValueError, match=r"no point of the grid"):
        check_sweep(SweepSettings({"a": wide["a"]}, sampler="grid", constraints=["a > 100"]))


# In a recipe ---------------------------------------------------------------------------------------

IN_YAML = """
  objectives: [num_parameters], confirm: {top: 2}, constraints: ["model.lr < 0.05"],
  start: [{network: lenet, model.lr: 0.01}], pruner: halving, pruner_options: {reduction_factor: 2},
  space: {
    model.lr: {low: 1.0e-4, high: 1.0e-1, log: true},
    network: {choices: {
      cnn: {model.backbone: small_cnn}, lenet: {model.backbone: lenet5, model.backbone_options: {}}}},
    model.backbone_options.widths: {choices: [[16, 32], [32, 64]], when: {network: cnn}},
    data.batch_size: {value: 32}}
"""


def test_a_written_space_parses_to_itself():
    experiment = parsed(IN_YAML)
    again = parse_experiment([experiment.to_yaml()], {})
    assert again.sweep == experiment.sweep
    assert again.config == experiment.config
    assert experiment.sweep.space["network"].labels == NETWORKS
    assert experiment.sweep.confirm.seeds == 3


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("model.dropout: {low: 0.0, high: 1.5}", ["model.dropout can't be '1.5'"]),
        ("data.batch_size: {low: 1, high: 9}, model.lr: {low: -1.0, high: 1.0}", ["model.lr can't be"]),
        ("data.batch_size: {value: many}", ["data.batch_size can't be 'many'"]),
        ("net: {choices: {a: {model.backbon: lenet5}}}", ["unknown key model.backbon;", "model.backbone"]),
        ("net: {choices: {a: {}, b: {model.backbone: lenet55}}}", ["can't be 'lenet55'", "mean lenet5"]),
        ("net: {choices: {a: {}, b: {model.backbone: lenet5}}}", ["can't be 'lenet5'", "widths"]),
        (
            "model.optimizer: {choices: [adamw, sgd]},"
            "model.dropout: {choices: [0.1, 2.0], when: {model.optimizer: sgd}}",
            ["model.dropout can't be '2.0'"],
        ),
    ],
)  # fmt: skip
def test_what_the_configuration_would_not_take_is_refused_before_the_search(space, words):
    with pytest.raises(RequestError, match=r"sweep\.space") as caught:
        parsed(f"space: {{{space}}}")
    assert all(word in str(caught.value) for word in words), caught.value


def test_values_that_only_together_are_refused_are_named_together():
    space = "model.backbone: {choices: [small_cnn, lenet5]}, model.backbone_options.widths: {choices: [[8]]}"
    with pytest.raises(RequestError, match=r"can't have model\.backbone=lenet5 and .*widths=\[8\]"):
        parsed(f"space: {{{space}}}", {"model.backbone_options": "{}"})


def test_a_value_that_a_constraint_keeps_from_every_trial_is_not_held_against_the_space():
    space = "model.dropout: {low: 0.0, high: 1.5}"
    assert parsed(f"space: {{{space}}}, constraints: ['model.dropout < 1']").sweep is not None


def test_probes_show_every_choice_and_both_ends_in_whole_trials():
    settings = parsed(IN_YAML).sweep
    shown = {(name, value) for probe in probes(settings) for name, value in probe.items()}
    assert shown == {
        ("model.lr", 1e-4), ("model.lr", 0.01), ("network", "cnn"), ("network", "lenet"),
        ("model.backbone_options.widths", "[16, 32]"), ("model.backbone_options.widths", "[32, 64]"),
    }  # fmt: skip


def test_another_sampler_does_not_inherit_the_options_of_the_first():
    first = (
        RECIPE + "sweep: {sampler_options: {n_startup_trials: 3}, space: {model.lr: {low: 0.1, high: 1.0}}}"
    )
    second = "sweep: {sampler: nsga2}"
    assert parse_experiment([first, second], {}).sweep.sampler_options == {}
    third = "sweep: {trials: 9}"
    assert parse_experiment([first, third], {}).sweep.sampler_options == {"n_startup_trials": 3}
