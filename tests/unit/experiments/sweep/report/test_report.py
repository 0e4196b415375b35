"""What a sweep shows of itself agrees with the study: ranking, leaderboard, savings, figures, files."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from darkroom.experiments.config.search_space.dimension import Dimension
from darkroom.experiments.config.search_space.settings import SweepSettings
from darkroom.experiments.sweep.report import leaderboard, report
from darkroom.experiments.sweep.study import trials

EPOCHS = 10
WIDTHS = ["[16, 32]", "[32, 64]"]
SPACE = {
    "model.lr": Dimension(low=1e-5, high=1e-1, log=True),
    "model.dropout": Dimension(low=0.0, high=0.6),
    "model.backbone_options.widths": Dimension(choices=[[16, 32], [32, 64]]),
}
ONE = SweepSettings(space=SPACE)
TWO = SweepSettings(space=SPACE, objectives=["num_parameters"])
FIGURES = {"history", "intermediate_values", "parallel_coordinates", "slices", "contours", "timeline"}


def accuracy(lr: float, dropout: float) -> float:
    """What only lr and dropout decide, lr the most."""
    return 0.95 - 0.08 * (math.log10(lr) + 2.5) ** 2 - 0.1 * abs(dropout - 0.2)


def search(trials: int, settings: SweepSettings = ONE, seed: int = 0) -> optuna.Study:
    """A real study: pruned by Optuna's median, every ninth trial failing, every seventh proposal refused."""
    study = optuna.create_study(
        study_name="digits/cnn",
        directions=["maximize", *("minimize" for _ in settings.objectives)],
        sampler=optuna.samplers.RandomSampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=6, n_warmup_steps=3),
    )
    for _ in range(trials):
        trial = study.ask()
        if trial.number % 7 == 6:
            trial.set_user_attr("infeasible", True)
            study.tell(trial, state=TrialState.FAIL)
        else:
            run_trial(study, trial, several=bool(settings.objectives))
    return study


def run_trial(study: optuna.Study, trial: optuna.Trial, several: bool) -> None:
    lr = trial.suggest_float("model.lr", 1e-5, 1e-1, log=True)
    dropout = trial.suggest_float("model.dropout", 0.0, 0.6)
    widths = trial.suggest_categorical("model.backbone_options.widths", WIDTHS)
    if widths == WIDTHS[1]:
        trial.suggest_int("model.backbone_options.depth", 1, 4)  # a conditional key
    reached: dict[int, float] = {}
    state = TrialState.COMPLETE
    for epoch in range(1, EPOCHS + 1):
        reached[epoch] = accuracy(lr, dropout) * (1 - math.exp(-epoch / 2))
        if several:
            trial.set_user_attr("curve", reached)
        else:
            trial.report(reached[epoch], epoch)
            if trial.should_prune():
                state = TrialState.PRUNED
                break
        if trial.number % 9 == 5 and epoch == 2:
            state = TrialState.FAIL
            break
    trial.set_user_attr("epochs", len(reached))
    trial.set_user_attr("seconds", 2.0 * len(reached))
    values = [max(reached.values()), *([1000.0 * len(widths)] if several else [])]
    study.tell(trial, values if state is TrialState.COMPLETE else None, state)


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return search(40)


def test_the_best_trial_is_the_one_that_optuna_holds_for_the_best(study):
    assert trials.best_trial(study, ONE).number == study.best_trial.number
    assert trials.ranked(study)[0].number == study.best_trial.number


def test_with_several_objectives_the_best_trial_is_the_best_in_the_metric():
    several = search(20, TWO)
    complete = several.get_trials(states=[TrialState.COMPLETE])
    best = max(complete, key=lambda trial: accuracy(trial.params["model.lr"], trial.params["model.dropout"]))
    assert trials.best_trial(several, TWO).number == best.number


def test_pruned_and_failed_trials_come_last_and_refused_proposals_nowhere(study):
    states = [trial.state.name for trial in trials.ranked(study)]
    assert states == sorted(states, key=["COMPLETE", "PRUNED", "FAIL"].index)
    assert set(states) == {"COMPLETE", "PRUNED", "FAIL"}
    assert [trial for trial in trials.ranked(study) if trial.number % 7 == 6] == []


def test_the_leaderboard_counts_the_trials_of_each_state(study):
    states = [trial.state.name for trial in study.trials if trial.number % 7 != 6]
    complete, pruned, failed = (states.count(name) for name in ("COMPLETE", "PRUNED", "FAIL"))
    table = leaderboard.leaderboard(study, ONE, rows=5)
    assert table.caption == f"{len(states)} trials: {complete} complete, {pruned} pruned, {failed} failed"
    assert table.row_count == 5
    names = [column.header for column in table.columns]
    assert names[:7] == ["trial", "state", "val/accuracy", "epochs", "lr", "dropout", "widths"]
    assert next(iter(table.columns[0].cells)) == str(study.best_trial.number)
    assert next(iter(table.columns[2].cells)) == f"{study.best_value:.4f}"


def test_a_running_trial_is_counted_but_not_ranked():
    running = search(5)
    running.ask()
    assert leaderboard.leaderboard(running, ONE).caption == "6 trials: 5 complete, 1 running"
    assert len(trials.ranked(running)) == 5


def test_pruning_saved_the_epochs_that_pruned_trials_lack_at_their_own_pace(study):
    pruned = study.get_trials(states=[TrialState.PRUNED])
    lacking = sum(EPOCHS - len(trial.intermediate_values) for trial in pruned)
    failed = [trial for trial in study.get_trials(states=[TrialState.FAIL]) if trial.intermediate_values]
    would_train = EPOCHS * (len(pruned) + len(study.get_trials(states=[TrialState.COMPLETE]))) + 2 * len(
        failed
    )
    saved = leaderboard.savings(study, EPOCHS)
    assert lacking > 0
    assert (saved.epochs, saved.all_epochs, saved.seconds) == (lacking, would_train, 2.0 * lacking)
    assert f"{lacking} of {would_train} epochs ({lacking / would_train:.0%}".rstrip("%") in str(saved)


def test_importances_name_the_key_that_decides_first():
    wide = search(60, SweepSettings(space=SPACE, objectives=["num_parameters"]))
    shares = report.key_importances(report.shown_trials(wide), TWO)
    assert list(shares)[:2] == ["lr", "dropout"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["lr"] > 0.7


def test_a_report_writes_figures_tables_and_one_page_without_network(study, tmp_path):
    report.write_report(study, ONE, tmp_path, EPOCHS)
    assert {path.stem for path in tmp_path.glob("figures/*.png")} >= FIGURES
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<h2>") >= 6
    page = page.replace(get_plotlyjs(), "")  # whose text may name calls and addresses too
    assert page.count("Plotly.newPlot(") == page.count("<h2>")
    assert 'src="http' not in page
    table = pd.read_csv(tmp_path / "tables" / "trials.csv")
    best = table.loc[table["val/accuracy"][table["state"] == "complete"].idxmax()]
    assert best["trial"] == study.best_trial.number
    assert best["model.lr"] == pytest.approx(study.best_params["model.lr"], rel=1e-12)
    assert set(table["model.backbone_options.widths"]) == set(WIDTHS)
    trials = (tmp_path / "tables" / "leaderboard.md").read_text().splitlines()
    assert trials[2].startswith(f"| {study.best_trial.number} | complete | {study.best_value:.4f} |")
    assert len({line.count("|") for line in trials[:12]}) == 1


def test_while_the_sweep_runs_only_the_cheap_part_is_written(study, tmp_path):
    report.write_report(study, ONE, tmp_path, EPOCHS, live=True)
    written = {path.name for path in tmp_path.rglob("*.*")}
    assert written == {"history.png", "intermediate_values.png", "leaderboard.csv", "leaderboard.md"}


def test_several_objectives_add_the_pareto_front_and_their_curves(tmp_path):
    report.write_report(search(20, TWO), TWO, tmp_path, EPOCHS)
    assert {"pareto_front", "intermediate_values"} <= {path.stem for path in tmp_path.glob("figures/*.png")}
    assert "Pareto front" in (tmp_path / "sweep.html").read_text()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("trials", "settings"), [(0, ONE), (1, ONE), (2, ONE), (5, ONE), (0, TWO), (4, TWO)])
def test_a_report_can_be_written_after_any_number_of_trials(trials, settings, tmp_path):
    begun = search(trials, settings)
    begun.ask()
    report.write_report(begun, settings, tmp_path, EPOCHS)
    complete = len(begun.get_trials(states=[TrialState.COMPLETE]))
    assert (tmp_path / "figures" / "history.png").exists() == (complete >= 1)
    assert (tmp_path / "figures" / "slices.png").exists() == (complete >= 2)
    assert (tmp_path / "figures" / "contours.png").exists() == (complete >= 4)


@pytest.mark.filterwarnings("error")
def test_trials_that_are_all_alike_or_infinite_are_no_obstacle(tmp_path):
    alike = optuna.create_study()
    for number in range(12):
        trial = alike.ask({"model.lr": optuna.distributions.FloatDistribution(0.1, 0.1)})
        trial.report(math.inf if number == 3 else 0.5, 1)
        alike.tell(trial, math.inf if number == 3 else 0.5)
    settings = SweepSettings(space={"model.lr": Dimension(choices=[0.1, 0.2])}, metric="val/loss")
    report.write_report(alike, settings, tmp_path, EPOCHS)
    assert (tmp_path / "figures" / "history.png").exists()
    assert not (tmp_path / "figures" / "importances.png").exists()


def test_the_pareto_front_is_the_one_that_optuna_finds():
    from darkroom.experiments.sweep.study.trials import is_on_front

    several = search(30, TWO)
    complete = several.get_trials(states=[TrialState.COMPLETE])
    costs = np.array([[-trial.values[0], trial.values[1]] for trial in complete])
    found = {trial.number for trial, on_front in zip(complete, is_on_front(costs), strict=True) if on_front}
    assert found == {trial.number for trial in several.best_trials}


def test_the_history_draws_the_best_value_so_far(study):
    from darkroom.experiments.sweep.report import plots

    (axes,) = plots.history(report.shown_trials(study), "val/accuracy", minimized=False).axes
    (line,) = (line for line in axes.lines if line.get_label() == "best so far")
    heights = np.asarray(line.get_ydata())
    assert heights[-1] == study.best_value
    assert (np.diff(heights) >= 0).all()


def test_a_report_leaves_the_study_as_it_was(tmp_path, study):
    before = [trial.params for trial in study.trials]
    report.write_report(study, ONE, tmp_path / "new" / "folder", EPOCHS, live=True)
    assert [trial.params for trial in study.trials] == before
