"""Updates the results table in a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import RequestError
from ...reporting.tables import markdown_row
from .verdict import HEADER, Reproduction

BEGIN = "<!-- reproductions: the rows below are written by `darkroom reproduce --out` -->"
END = "<!-- reproductions: end -->"
ROW = re.compile(r"^\| `(?P<recipe>[^`]+)` \|")
HEAD = (markdown_row(HEADER), markdown_row(["---"] * len(HEADER)))


def markdown(rows: Sequence[Reproduction]) -> str:
    """The table by itself, in the order of the rows."""
    return "\n".join([*HEAD, *map(line, rows)]) + "\n"


def line(row: Reproduction) -> str:
    """A row of it."""
    recipe, *others = row.cells()
    return markdown_row([f"`{recipe}`", *others])


def check_document(path: Path) -> None:
    """Checks that the table can be written into a file, before seeds are trained for it.

    Raises:
        RequestError: The file's table is none of this kind.
    """
    if path.is_file():
        _divide(path)


def update_table(path: Path, rows: Sequence[Reproduction]) -> list[str]:
    """Puts the rows into the table that the file has, or a table of them at its end; by recipes' names.

    What stands there of other recipes is kept, and so is what stands of those of which no seed has a
    finished run: that a store is empty says nothing of a number that another one held.

    Returns:
        Recipes among those asked for whose rows were kept.

    Raises:
        RequestError: The file's table is none of this kind.
    """
    before, there, after = _divide(path) if path.is_file() else ([], [], [])
    standing = [(match["recipe"], each) for each in there if (match := ROW.match(each))]
    asked, obtained = {row.recipe for row in rows}, {row.recipe for row in rows if row.values}
    kept = (asked - obtained) & {recipe for recipe, _ in standing}
    written = asked - kept
    body = [(recipe, each) for recipe, each in standing if recipe not in written]
    body += [(row.recipe, line(row)) for row in rows if row.recipe in written]
    body.sort(key=lambda entry: entry[0])
    lines = [*before, BEGIN, *HEAD, *(each for _, each in body), END, *after]
    path.write_text("\n".join(lines) + "\n")
    return sorted(kept)


def _divide(path: Path) -> tuple[list[str], list[str], list[str]]:
    """The file's lines before its table, between the two comments, and after it."""
    lines = path.read_text().splitlines()
    if BEGIN not in lines and END not in lines:
        return lines, [], []
    if BEGIN not in lines or END not in lines[lines.index(BEGIN) :]:
        raise RequestError(
            f"--out: {path} has one of the two lines between which the table stands, and lacks the other: "
            f"{BEGIN} ... {END}"
        )
    begin = lines.index(BEGIN)
    end = lines.index(END, begin)
    there = lines[begin + 1 : end]
    if there and there[0] != HEAD[0]:
        raise RequestError(f"--out: the table in {path} has other columns; they must be {', '.join(HEADER)}")
    return lines[:begin], there, lines[end + 1 :]
