"""The site builds without a warning, and its reference holds everything that the code has."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from darkroom.experiments.cli.parser import COMMANDS, command_parser
from darkroom.experiments.config import parser as config_parser
from darkroom.experiments.config.keys import classes_for, known_keys
from darkroom.experiments.config.parser import SETTINGS
from darkroom.experiments.recipes import recipe_names

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))


def text_of(page: Path) -> str:
    """What a reader sees of a page, on one line."""
    words = html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))
    return " ".join(words.split())


@pytest.fixture(scope="module")
def reference(site: Path) -> Path:
    return site / "reference" / "generated"


def test_every_command_and_every_option_stands_in_the_reference(reference):
    page = text_of(reference / "commands.html")
    for name in COMMANDS:
        assert f"darkroom {name}" in page
        for action in command_parser(name)._actions:
            for option in action.option_strings:
                assert option in page or option in ("-h", "--help"), (name, option)


def test_every_configuration_key_stands_in_the_reference(reference):
    shown = set(re.findall(r"[a-z_]+(?:\.[a-z0-9_]+)+", text_of(reference / "configuration.html")))
    sections = [("data", source) for source in classes_for("data").values()]
    sections += [("model", model) for model in classes_for("model").values()] + list(SETTINGS.items())
    for section, cls in sections:
        keys = known_keys({section: cls}) - {"name", "seed", section}
        assert keys <= shown, keys - shown


def test_a_new_key_is_found_in_the_built_page(tmp_path, monkeypatch):
    from generated_pages import configuration_page

    @dataclass(frozen=True)
    class Extra:
        """A section of its own.

        Args:
            grain_size: Micrometres of a grain of silver.
        """

        grain_size: float = 0.7

    Extra.__init__.__annotations__["grain_size"] = float
    monkeypatch.setitem(config_parser.SETTINGS, "extra", Extra)
    (tmp_path / "conf.py").write_text(
        "extensions = ['myst_parser']; myst_enable_extensions = ['deflist']; html_theme = 'furo'"
    )
    (tmp_path / "index.md").write_text(configuration_page())
    subprocess.run([sys.executable, "-m", "sphinx", "-q", tmp_path, tmp_path / "html"], check=True)
    page = text_of(tmp_path / "html" / "index.html")
    assert "extra.grain_size (float, default 0.7)Micrometres of a grain of silver." in page


def test_every_recipe_stands_in_the_reference(reference):
    page = text_of(reference / "recipes.html")
    assert [name for name in recipe_names() if name not in page] == []


def test_the_tree_holds_every_file_with_its_first_sentence(site):
    page = text_of(site / "explanation" / "architecture.html")
    from generated_pages import first_sentence

    for package in ("datamodules", "experiments", "lightning_modules"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "__init__.py":
                assert f"{path.name} {first_sentence(path)}" in page, path


def test_every_module_has_its_place_in_the_reference(reference):
    pages = " ".join(path.read_text() for path in (reference / "python").glob("*.html"))
    for package in ("datamodules", "experiments", "lightning_modules"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "__init__.py":
                module = ".".join(("darkroom", *path.relative_to(ROOT).with_suffix("").parts))
                assert f'id="module-{module}"' in pages, module


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not re.search(r'<(?:script|img|link)[^>]+(?:src|href)="https?://', page.read_text()), page
