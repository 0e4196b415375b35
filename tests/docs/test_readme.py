"""README and guides tell the truth about commands, recipes and files."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean

import pytest

from darkroom.experiments.cli.parser import COMMANDS
from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.recipes import recipe_names
from darkroom.experiments.workflows.reproduce.markdown_table import BEGIN, END, HEAD
from darkroom.experiments.workflows.reproduce.verdict import HEADER, Reproduction, judge

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GUIDES = "\n".join(
    path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in path.parts
)
REPRODUCTIONS = (ROOT / "docs" / "results" / "reproductions.md").read_text()
MAX_LINES = 250  # of the first screen


def test_it_lists_exactly_the_commands_there_are():
    listed = re.findall(r"^\| `darkroom ([\w-]+)", README, flags=re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_with_its_output(command):
    """But `ui`, whose output is what the pictures show."""
    shown = re.search(rf"^\$ darkroom {command}\b.*(\\\n.*)*\n(?!\$|```)", GUIDES, flags=re.MULTILINE)
    assert command == "ui" or shown


def reproductions() -> list[list[str]]:
    """The rows of the table that `darkroom reproduce --out` writes, as their cells."""
    lines = REPRODUCTIONS.splitlines()
    head, rule, *rows = lines[lines.index(BEGIN) + 1 : lines.index(END)]
    assert (head, rule) == HEAD
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


def test_its_table_of_reproductions_has_one_row_for_every_recipe():
    recipes = [cells[0].strip("`") for cells in reproductions()]
    assert recipes == recipe_names()
    assert all(len(cells) == len(HEADER) for cells in reproductions())


def test_its_table_of_reproductions_holds_what_recipes_claim_and_the_verdicts_that_follow():
    for recipe, claimed, source, obtained, verdict, seeds, *_ in reproductions():
        experiment = load_experiment([recipe.strip("`")])
        claim, trains = experiment.claim, experiment.trainer.max_epochs > 0
        if claim is None:
            assert (claimed, verdict) == ("none", "no verdict: nothing is claimed *")
            continue
        [(metric, value)] = claim.metrics.items()
        values = [float(each) / 100 for each in seeds.split(", ") if each != "-"]
        lacking = len(claim.seeds) - len(values)
        follows = f"no verdict: {lacking} seeds are not recorded" if lacking else judge(values, value, trains)
        row = Reproduction("", claim.source, metric, value, values, 0.0, follows)
        assert [claimed, source, verdict.removesuffix(" *")] == [*row.cells()[1:3], follows], recipe
        if values:
            assert float(obtained.split()[0]) == pytest.approx(100 * fmean(values), abs=0.01), recipe


def test_it_is_a_first_screen():
    assert len(README.splitlines()) <= MAX_LINES


def test_every_file_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / link).is_file(), link


def test_every_make_target_it_names_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`?make ([\w-]+)`? ", README)) <= {*targets, "and"}


def test_nothing_it_shows_is_left_to_be_filled_in():
    assert not re.search(r"@[A-Z]+@", README + GUIDES)


def test_the_search_space_it_shows_is_one(tmp_path):
    shown = re.findall(r"```yaml\n(sweep:.*?)```", GUIDES, flags=re.DOTALL)
    assert shown
    for number, text in enumerate(shown):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"data: Digits\nmodel: ImageClassifier\nname: digits/shown\n{text}")
        experiment = load_experiment([str(path)], check_space=True)
        assert experiment.sweep is not None
        assert len(experiment.sweep.space) >= 4


def test_the_recipe_of_ones_own_it_shows_trains(tmp_path, monkeypatch):
    import numpy as np
    import pandas as pd
    from PIL import Image

    from darkroom.experiments.config.experiment import parse_experiment
    from darkroom.experiments.training.run import train

    (text,) = re.findall(r"```yaml\n(name: leaves/resnet18.*?)```", GUIDES, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = []
    for number in range(60):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(f"{number}.png")
        rows.append(
            {"image": f"{number}.png", "rust": number % 2, "scab": number % 3 // 2, "plant": number // 3}
        )
    pd.DataFrame(rows).to_csv("leaves.csv", index=False)
    overrides = {"data.cache": "cache", "data.image_size": "32", "trainer.max_epochs": "1"}
    result = train(parse_experiment([text], overrides), None)
    assert {"test/average_precision", "test/f1_macro_tuned"} <= result.metrics.keys()
