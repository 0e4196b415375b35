"""`reproduce` trains a recipe's seeds once, and says what they say of its claim."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.html import Page, shown_in_a_browser

from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.config.settings import Claim, ClaimedValue
from darkroom.experiments.errors import RequestError
from darkroom.experiments.workflows.reproduce.html_report import render_page
from darkroom.experiments.workflows.reproduce.markdown_table import (
    BEGIN,
    END,
    HEAD,
    check_document,
    update_table,
)
from darkroom.experiments.workflows.reproduce.seed_runs import fraction
from darkroom.experiments.workflows.reproduce.verdict import Reproduction, judge

RECIPE = """
name: {name}
data: {{class_path: Digits, init_args: {{batch_size: 64}}}}
model:
  class_path: ImageClassifier
  init_args: {{backbone: small_cnn, backbone_options: {{widths: [8]}}, lr: 0.01}}
trainer: {{max_epochs: 2, precision: 32-true, progress: false}}
claim:
  metrics: {{test/accuracy: {{value: {value}, tolerance: 0.1, at_least: {at_least}}}}}
  seeds: [0, 1, 2]
  source: a test
"""


def test_less_than_the_whole_keeps_both_parts_of_a_training_and_ends_its_warm_up() -> None:
    experiment = load_experiment(["cats_dogs/finetune"], {"model.warmup_epochs": "3"})
    less = {
        "model.finetuning.head_epochs": "1",
        "model.warmup_epochs": "2",
        "trainer.max_epochs": "2",
    }
    assert fraction(experiment, "mini") == less  # of 12 epochs, 8 of them of the head alone
    assert fraction(experiment, "smoke") == less | {"trainer.extra": "{'limit_train_batches': 5}"}
    assert fraction(experiment, "full") == {}


@pytest.fixture
def recipe(inside) -> Callable[..., str]:
    """Writes a recipe that trains in a second, with a claim of its own."""

    def write(name: str, value: float, at_least: bool = False) -> str:
        path = inside.folder / f"{name.replace('/', '-')}.yaml"
        path.write_text(RECIPE.format(name=name, value=value, at_least=str(at_least).lower()))
        return str(path)

    return write


def test_seeds_are_trained_once_and_judged_by_their_mean(recipe, darkroom, store, tmp_path):
    table = tmp_path / "table.md"
    answer = darkroom("reproduce", recipe("claims/too_much", 1.1), f"--out={table}")
    assert answer.status == 0, answer.errors
    [line] = [line for line in table.read_text().splitlines() if "claims/too_much" in line]
    assert "| not reproduced |" in line
    finished = [run for run in store.runs_of("claims/too_much") if "seed" in run.params]
    assert sorted(run.params["seed"] for run in finished) == ["0", "1", "2"]
    accuracies = {run.params["seed"]: run.metrics["test/accuracy"] for run in finished}
    assert ", ".join(f"{100 * accuracies[seed]:.2f}" for seed in "012") in line
    assert f"{100 * sum(accuracies.values()) / 3:.2f} % [" in line
    parents = {run.tags["mlflow.parentRunId"] for run in finished}
    [parent] = [run for run in store.runs_of("claims/too_much") if run.tags.get("role") == "reproduction"]
    assert parents == {parent.run_id}
    assert parent.tags["verdict"] == "not reproduced"
    assert parent.metrics["mean/test/accuracy"] == pytest.approx(sum(accuracies.values()) / 3)

    written = table.read_text()
    again = darkroom("reproduce", recipe("claims/too_much", 1.1), "--recorded", f"--out={table}")
    assert again.status == 0, again.errors
    assert table.read_text() == written
    page = tmp_path / "page.html"
    again = darkroom("reproduce", recipe("claims/too_much", 1.1), "--recorded", f"--out={page}")
    assert again.status == 0, again.errors
    assert page.read_text() == Path(parent.download("reproduction.html")).read_text()
    assert len([run for run in store.runs_of("claims/too_much") if "seed" in run.params]) == 3

    # More than a lower bound is what was claimed: the same runs, judged by another claim.
    answer = darkroom("reproduce", recipe("claims/too_much", 0.3, at_least=True), f"--out={table}")
    assert "| reproduced |" in table.read_text()
    assert len([run for run in store.runs_of("claims/too_much") if "seed" in run.params]) == 3


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--budget=smoke"], "only the smoke part"),
        (["--model.lr=0.02", "--budget=mini"], "only the mini part"),
    ],
)
def test_less_than_the_whole_gives_no_verdict(extra, said, recipe, darkroom, tmp_path):
    table = tmp_path / "table.md"
    answer = darkroom("reproduce", recipe("claims/part", 0.5), *extra, f"--out={table}")
    assert answer.status == 0, answer.errors
    assert f"no verdict: {said}" in table.read_text()


def test_what_is_not_recorded_is_said(recipe, darkroom, tmp_path):
    table = tmp_path / "table.md"
    answer = darkroom("reproduce", recipe("claims/nothing", 0.5), "--recorded", f"--out={table}")
    assert answer.status == 0, answer.errors
    assert "no verdict: 3 seeds are not recorded" in table.read_text()


def test_a_changed_recipe_gets_no_verdict_and_its_runs_are_not_the_recipes(recipe, darkroom, tmp_path):
    changed, table, path = tmp_path / "changed.md", tmp_path / "table.md", recipe("claims/changed", 0.5)
    darkroom("reproduce", path, "--trainer.max_epochs=1", f"--out={changed}")
    assert "no verdict: trainer.max_epochs was changed" in changed.read_text()
    darkroom("reproduce", path, "--recorded", f"--out={table}")
    assert "no verdict: 3 seeds are not recorded" in table.read_text()


def test_a_row_of_what_is_not_recorded_here_is_kept_as_it_stands(recipe, darkroom, tmp_path):
    table = tmp_path / "table.md"
    noted = "| `claims/elsewhere` | 50 % | a test | 51 % | reproduced | 51, 51, 51 | 1 s |"
    table.write_text("\n".join([BEGIN, *HEAD, noted, END]) + "\n")
    before = table.read_text()
    answer = darkroom("reproduce", recipe("claims/elsewhere", 0.5), "--recorded", f"--out={table}")
    assert answer.status == 0, answer.errors
    assert "no finished run of them is recorded here: claims/elsewhere" in answer.output
    assert table.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["blood_cells/cnn"], "has no claim"),
        ([], "which recipes?"),
        (["digits/cnn", "--all"], "which recipes?"),
        (["digits/cnn", "--recorded", "--fresh"], "give one of them"),
        (["digits/cnn", "--mlflow.enabled=false"], "must be true"),
        (["digits/cnn", "--out=nowhere/table.md"], "there is no folder"),
    ],
)
def test_what_can_not_be_reproduced_is_refused(arguments, said, darkroom):
    answer = darkroom("reproduce", *arguments)
    assert answer.status == 2
    assert said in answer.errors


def row(recipe: str, *values: float, verdict: str = "underpowered", at_least: bool = False) -> Reproduction:
    claimed = ClaimedValue(0.9, at_least=at_least)
    return Reproduction(recipe, "ours", "test/accuracy", claimed, values, 10.0, verdict)


def test_its_page_shows_each_seeds_distance_from_the_claim_and_no_error_in_a_browser(tmp_path):
    rows = [
        row("a/net", 0.91, 0.90, 0.905, verdict="reproduced", at_least=True),
        row("b/net", 0.85, 0.86, verdict="not reproduced"),
        row("c/net", 0.93),
        row("d/<net>", verdict="no verdict: 3 seeds are not recorded"),
    ]
    path = tmp_path / "page.html"
    path.write_text(render_page(rows))
    page = path.read_text()
    assert Page(page).fetched == []
    assert "1 reproduced, 1 not reproduced, 1 underpowered, 1 no verdict" in page
    dots = [float(each) for each in re.findall(r'<circle cx="([\d.]+)" [^>]*r="2.5"', page)]
    assert len(dots) == 6
    [claimed] = [float(each) for each in re.findall(r'x="([\d.]+)"[^>]*>claimed<', page)]
    assert [dot > claimed for dot in dots] == [True, False, True, False, False, True]
    assert "d/&lt;net&gt;" in page
    assert "c/net" in shown_in_a_browser(path, tmp_path / "profile")


def test_a_table_keeps_what_was_not_asked_for_and_the_text_around_it(tmp_path):
    path: Path = tmp_path / "README.md"
    path.write_text("# Title\n")
    assert update_table(path, [row("b/net", 0.5), row("a/net", 0.25)]) == []
    path.write_text(path.read_text() + "\nThe end.\n")
    assert update_table(path, [row("b/net", 0.75), row("a/net"), row("c/net")]) == ["a/net"]
    lines = path.read_text().splitlines()
    assert lines[:4] == ["# Title", BEGIN, *HEAD]
    assert [line.split("|")[1].strip() for line in lines[4:7]] == ["`a/net`", "`b/net`", "`c/net`"]
    assert [line.split("|")[4].strip() for line in lines[4:7]] == ["25.00 %", "75.00 %", "-"]
    assert lines[7:] == [END, "", "The end."]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([BEGIN, *HEAD], "lacks the other"),
        ([END, BEGIN], "lacks the other"),
        ([BEGIN, "| recipe | claim |", "|---|---|", END], "has other columns"),
    ],
)
def test_a_file_whose_table_is_another_is_refused_before_anything_is_trained(lines, said, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("\n".join(lines))
    with pytest.raises(RequestError, match=said):
        check_document(path)


def test_a_loss_is_told_as_a_number_and_not_in_percent():
    claimed = ClaimedValue(0.1, 0.05)
    told = Reproduction(
        "digits/cnn", "ours", "test/log_loss", claimed, [0.09, 0.1, 0.11], 10.0, "reproduced"
    ).cells()
    assert told[1] == "0.1000 (± 0.0500) test/log_loss"
    assert told[3].startswith("0.1000 [0.0")
    assert told[5] == "0.0900, 0.1000, 0.1100"


def test_seeds_that_tie_have_no_interval_and_keep_their_verdict():
    claimed = ClaimedValue(0.983, 0.005)
    values = [0.9833, 0.9833, 0.9833]
    told = Reproduction("a", "ours", "test/accuracy", claimed, values, 10.0, judge(values, claimed)).cells()
    assert told[3:5] == ("98.33 % (no interval: the seeds tie)", "reproduced")


def test_a_loss_is_at_most_its_claim_and_never_at_least():
    with pytest.raises(ValueError, match=r"test/log_loss at_least.*lower is better; set at_most"):
        Claim({"test/log_loss": ClaimedValue(0.1, at_least=True)})
    with pytest.raises(ValueError, match=r"test/accuracy at_most.*higher is better; set at_least"):
        Claim({"test/accuracy": ClaimedValue(0.9, at_most=True)})
    claimed = Claim({"test/log_loss": ClaimedValue(0.1, 0.02, at_most=True)}).metrics["test/log_loss"]
    assert judge([0.01, 0.02, 0.015], claimed) == "reproduced"
    assert judge([0.2, 0.21, 0.205], claimed) == "not reproduced"
    loss = Reproduction("a/net", "ours", "test/log_loss", claimed, [0.01, 0.02], 1.0, "reproduced")
    assert loss.cells()[1] == "at most 0.1000 (± 0.0200) test/log_loss"
    assert "inf" not in render_page([loss]).partition("<svg")[2].partition("</svg>")[0]


def test_a_claim_that_any_worse_loss_would_keep_is_refused(recipe, darkroom):
    path = Path(recipe("claims/loss", 0.5, at_least=True))
    path.write_text(path.read_text().replace("test/accuracy", "test/loss"))
    answer = darkroom("reproduce", str(path))
    assert answer.status == 2
    assert "test/loss at_least: true, which would accept any worse value" in answer.errors
