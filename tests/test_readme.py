"""The README tells the truth about commands, recipes, files and the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS
from experiments.recipes import recipe_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PACKAGES = ("datamodules", "lightning_modules", "experiments")


def test_it_lists_exactly_the_commands_there_are():
    listed = re.findall(r"^\| `darkroom ([\w-]+)", README, flags=re.MULTILINE)
    assert listed == list(COMMANDS)


def test_its_table_of_reproductions_has_a_row_for_every_recipe():
    rows = re.findall(r"^\| `([\w/]+/\w+)` \|", README, flags=re.MULTILINE)
    assert sorted(rows) == recipe_names()


@pytest.mark.parametrize("package", PACKAGES)
def test_its_tree_has_every_module_with_the_first_sentence_of_its_docstring(package):
    tree = README[README.index("## The house") :]
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name != "__init__.py":
            docstring = ast.get_docstring(ast.parse(path.read_text()))
            sentence = " ".join(docstring.partition("\n\n")[0].split())
            assert re.search(rf"^ +{path.name} +{re.escape(sentence)}$", tree, flags=re.MULTILINE), path


def test_every_file_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / link).is_file(), link


def test_every_make_target_it_names_exists():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`?make (\w+)`? ", README)) <= {*targets, "and"}


def test_nothing_it_shows_is_left_to_be_filled_in():
    assert not re.search(r"@[A-Z]+@", README)


def test_the_search_space_it_shows_is_one(tmp_path):
    from experiments.config import load_experiment

    shown = re.findall(r"```yaml\n(sweep:.*?)```", README, flags=re.DOTALL)
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

    from experiments.config import parse_experiment
    from experiments.train import train

    (text,) = re.findall(r"```yaml\n(name: leaves.*?)```", README, flags=re.DOTALL)
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
