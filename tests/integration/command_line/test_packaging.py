"""What the package says of its own installation is true: its name, its extras, where it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from experiments.errors import RequestError
from experiments.extras import EXTRAS, remedy, require

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("datamodules", "experiments", "lightning_modules", "tests")
# Import names of libraries whose distributions are named otherwise.
IMPORTED_AS = {"nvidia-ml-py": "pynvml", "psycopg[binary]": "psycopg"}


def test_nobody_is_told_to_install_the_package_of_that_name_which_is_not_ours():
    command, extra = re.compile(r"pip3? install [^`]*\bdarkroom\b(?! *[-_]classification)"), "darkroom" + "["
    texts = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")
    ]
    for path in [*texts, ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml"]:
        for line in path.read_text().splitlines():
            assert extra not in line, (path, line)
            # A message may name the checkout of darkroom behind the command.
            assert not command.search(line.partition(" in the checkout")[0]), (path, line)
    assert PROJECT["name"] == "darkroom-classification"


def test_each_optional_library_is_of_the_extra_that_is_told():
    declared = {
        IMPORTED_AS.get(library, library): extra
        for extra, libraries in PROJECT["optional-dependencies"].items()
        if extra != "dev"
        for library in (re.split(r"[><=]", requirement)[0] for requirement in libraries)
    }
    assert declared == EXTRAS


def test_a_missing_library_is_refused_with_what_installs_it():
    with pytest.raises(RequestError, match="--rope needs no_such_library, which is not installed") as refused:
        require("no_such_library", "--rope")
    assert remedy(refused.value) == "pip install no_such_library"
    require("torch", "all")
