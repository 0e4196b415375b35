"""Validates --out paths."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError


def check_out(path: Path, suffixes: tuple[str, ...] = ()) -> Path:
    """A file to write, before the work that it is to tell of begins.

    Args:
        path: As given.
        suffixes: Of the kinds of files that the command writes; any, where none is named.

    Returns:
        The path as given.

    Raises:
        RequestError: It is of no such kind, or there is no such folder.

    >>> check_out(Path("table.txt"), (".md", ".csv"))
    Traceback (most recent call last):
    darkroom.experiments.errors.RequestError: --out must name a file that ends in .md or .csv, got table.txt
    """
    if suffixes and path.suffix not in suffixes:
        *others, last = suffixes
        kinds = f"{', '.join(others)} or {last}" if others else last
        raise RequestError(f"--out must name a file that ends in {kinds}, got {path}")
    if not path.parent.is_dir():
        raise RequestError(f"--out: there is no folder {path.parent.resolve()}")
    return path
