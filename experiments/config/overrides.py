"""Overrides of configuration keys on the command line: told from options, checked, and written as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ..errors import RequestError


def split_overrides(argv: Sequence[str], options: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Separates a command's own arguments from configuration keys, wherever these stand.

    >>> split_overrides(["cnn", "--model.lr", "0.1", "--trials=3", "--seed=1"], ["--trials"])
    (['cnn', '--trials=3'], {'model.lr': '0.1', 'seed': '1'})
    """
    own: list[str] = []
    overrides: dict[str, str] = {}
    pending = list(argv)
    while pending:
        argument = pending.pop(0)
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or flag in options:
            own.append(argument)
            continue
        if not equals:
            if not pending or pending[0].startswith("--"):
                raise RequestError(f"{flag} needs a value: {flag}=...")
            value = pending.pop(0)
        overrides[flag.removeprefix("--")] = value
    return own, overrides


def to_text(value: Any) -> str:
    """A value as it would stand on the command line.

    >>> to_text("adam"), to_text([16, 32]), to_text(None), to_text(1e-4)
    ('adam', '[16, 32]', 'null', '0.0001')
    """
    return value if isinstance(value, str) else json.dumps(value)


def check_overrides(overrides: Mapping[str, str], admitted: Sequence[str], reason: str) -> None:
    """Refuses keys that a command cannot change, because it works on what is recorded.

    Args:
        overrides: Keys of the command line.
        admitted: Keys that may be given; "data.*" stands for all keys of a section.
        reason: Why no others may, as a clause.

    Raises:
        RequestError: Another key is given.

    >>> check_overrides({"data.root": "here"}, ["data.*"], "the run is recorded")
    """
    for key in overrides:
        if not any(fnmatchcase(key, each) for each in admitted):
            raise RequestError(f"{key} can't be changed: {reason}. Only {', '.join(admitted)} can be given")
