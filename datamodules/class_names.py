"""Names of classes that may be the same class, written in two ways."""

from __future__ import annotations

from collections.abc import Sequence


def alike(class_names: Sequence[str]) -> list[str]:
    """Sentences about names that differ only in upper and lower case.

    >>> alike(["Ant", "ant", "bee"])
    ['Classes "Ant" and "ant" differ only in upper and lower case; if they are the same, correct the labels']
    """
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(name.casefold(), []).append(f'"{name}"')
    return [
        f"Classes {', '.join(names[:-1])} and {names[-1]} differ only in upper and lower case; "
        "if they are the same, correct the labels"
        for names in groups.values()
        if len(names) > 1
    ]
