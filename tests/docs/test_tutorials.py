"""Each tutorial does what it says, command by command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.training import run_id
from support.workspace import Workspace

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
NOT_RUN = ("make ", ". ", "darkroom ui")  # the set-up, and a server


def steps(text: str) -> Iterator[tuple[str, str]]:
    """The files to be written and the commands, in order: (file, text) or ("$", command)."""
    pattern = r"Write `(?P<file>[\w.-]+)`:\n\n```yaml\n(?P<text>.*?)```|```console\n(?P<commands>.*?)```"
    for match in re.finditer(pattern, text, flags=re.DOTALL):
        if match["file"]:
            yield match["file"], match["text"]
            continue
        for command in re.findall(r"^\$ (.*(?:\n(?!\$).*)*)", match["commands"], flags=re.MULTILINE):
            yield "$", command


def write_leaves(folder: Path) -> None:
    """Images of three classes, each in a folder of its own."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("healthy", "rust", "scab")):
        for number in range(20):
            pixels = random.integers(0, 120, (40, 50, 3)) + np.array([60 * label, 40, 120 - 60 * label])
            path = folder / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.mark.parametrize("name", ["first-run-and-sweep", "own-images", "is-it-real"])
def test_a_tutorial_does_what_it_says(name, tmp_path):
    workspace = Workspace(tmp_path)
    write_leaves(tmp_path / "leaves")
    run = ""
    commands = 0
    for kind, text in steps((TUTORIALS / f"{name}.md").read_text()):
        if kind != "$":
            (tmp_path / kind).write_text(text)
            continue
        command, _, expected = text.partition("\n")
        if command.startswith(NOT_RUN):
            continue
        program, *arguments = shlex.split(command.replace("RUN", run))
        assert program == "darkroom"
        answer = workspace.run(*arguments, HOME=str(tmp_path))  # where the cache of images lies
        commands += 1
        if expected.startswith("darkroom: "):
            assert (answer.status, answer.errors.strip()) == (2, expected.strip())
            continue
        assert answer.status == 0, answer.errors
        if arguments[0] == "train":
            run = run_id(answer.output)
        if arguments[0] == "rerun":
            assert "bit-identical" in answer.output
    assert commands > 2
