"""Every benchmark runs, at a tiny size, and prints its figures in the one format."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest
from bench import FIGURE, figure, interleaved, ratios
from support import fork_server

pytestmark = pytest.mark.slow_first

RUNNER = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "__main__.py"), run_name="runner")
PROGRAMS = RUNNER["benchmarks"]()
SECONDS = 120  # on a machine that does much else; none takes more than ten where it does not


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_tiny_run_prints_figures_and_nothing_else(program: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DARKROOM_DATA"}
    process = fork_server.start((str(program), "--tiny"), tmp_path, environment, session=True)
    output, errors = process.communicate(SECONDS)
    assert process.returncode == 0, errors
    lines = output.splitlines()
    assert lines, "it prints no figure"
    for line in lines:
        assert FIGURE.fullmatch(line), f"not a figure's line: {line}"
        assert line.startswith(f"{program.stem}/")
    names = [line.split()[0] for line in lines]
    assert len(set(names)) == len(names)
    assert list(tmp_path.iterdir()) == []  # what it makes lies in a folder of its own


def test_those_that_need_a_gpu_are_known_by_their_mark() -> None:
    assert [path.stem for path in PROGRAMS if RUNNER["needs_gpu"](path)] == ["gpu"]
    assert {"training_loop", "run_end", "sweep"} <= {path.stem for path in PROGRAMS}


def test_a_figure_is_the_median_of_the_rounds_ratios(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("bench._FIGURES", sys.stdout)
    numbers = iter([2.0, 1.0, 1.0, 6.0, 8.0, 2.0])
    measured = interleaved(3, {"ours": lambda: next(numbers), "theirs": lambda: next(numbers)})
    assert measured == {"ours": [2.0, 6.0, 8.0], "theirs": [1.0, 1.0, 2.0]}  # the second round goes backwards
    figure("training_loop/bare", ratios(measured, "ours", "theirs"), "images/s", "Darkroom", "a bare loop")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split(maxsplit=1)[1] == "4.000  [2.000, 6.000]  images/s: Darkroom / a bare loop"
