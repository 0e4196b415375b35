"""Short lists for messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAX_NAMED = 5  # in one sentence, or sentences of one kind


def some(names: Sequence[str], shown: int = MAX_NAMED) -> str:
    """The first few, and how many more there are.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def first_few(sentences: list[str], in_all: str) -> list[str]:
    """Returns the first few of sentences of one kind; where there are more, a last one counts all.

    >>> first_few(["a", "b"], "two in all"), first_few(list("abcdef"), "six in all")
    (['a', 'b'], ['a', 'b', 'c', 'd', 'e', 'six in all'])
    """
    return sentences if len(sentences) <= MAX_NAMED else [*sentences[:MAX_NAMED], in_all]


def counts_of(names: Mapping[str, int]) -> str:
    """Numbers by name, in words.

    >>> counts_of({".txt": 2, ".pdf": 1})
    '2 .txt, 1 .pdf'
    """
    return ", ".join(f"{count} {name}" for name, count in names.items())
