"""What the package says of its own installation is true: its name, its extras, where it comes from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from darkroom.experiments.errors import RequestError
from darkroom.experiments.runtime.extras import EXTRAS, remedy, require

ROOT = Path(__file__).parents[3]
PACKAGES = ("datamodules", "experiments", "lightning_modules")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("datamodules", "experiments", "lightning_modules", "src", "tests")
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the built wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    site = folder / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_the_wheel_holds_all_of_the_package_and_nothing_else(installed):
    built = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    sources = [
        path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".yaml")
    ]
    expected = {f"darkroom/{path.relative_to(ROOT).as_posix()}" for path in sources}
    expected |= {f"darkroom/{name}" for name in ("__init__.py", "__main__.py", "py.typed")}
    assert {name for name in built if ".dist-info/" not in name} == expected


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A user's project with packages that are named as parts of ours are."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('the {name} of this project')")
    return tmp_path


@pytest.mark.parametrize("how", ["a wheel", "an editable install"])
def test_a_project_may_have_packages_that_are_named_as_parts_of_ours(how, installed, crowded):
    """In this process, in children that are spawned, and in trials that are forked from a server."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{crowded / 'mlflow.db'}"}
    expected = ROOT / "src" / "darkroom"
    if how == "a wheel":
        environment["PYTHONPATH"] = str(installed)
        expected = installed / "darkroom"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=crowded, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    spawned = """
import multiprocessing, darkroom
def where(queue):
    from darkroom.experiments import errors
    queue.put(errors.__file__)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    context.Process(target=where, args=(queue,)).start()
    print(queue.get(timeout=60))
"""
    (crowded / "spawning.py").write_text(spawned)
    assert run("spawning.py").strip() == str(expected / "experiments" / "errors.py")
    keys = ["--model.backbone_options.widths=[4]", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    answer = run(
        "-m", "darkroom", "sweep", "digits/cnn", "--trials=2", "--workers=2", *keys, "--sweep.confirm=null"
    )
    assert "run " in answer


def test_the_packages_cannot_be_imported_by_their_bare_names(tmp_path):
    """A second copy of the same code would have classes of its own."""
    for name in PACKAGES:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True
        )
        assert f"import darkroom.{name}" in done.stderr


@pytest.mark.slow  # mypy looks at all that it imports
def test_a_type_checker_in_a_users_project_sees_our_types(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("from darkroom import ImageClassifier\nreveal_type(ImageClassifier.build)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert "num_outputs" in done.stdout or "int" in done.stdout, done.stdout
    assert "import-untyped" not in done.stdout
