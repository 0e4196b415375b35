"""What can go wrong for a user, with the exit status it ends in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RequestError(Exception):
    """The request was wrong; nothing was started. Exit status 2."""


class RunError(Exception):
    """The work failed on its way; what was recorded is kept. Exit status 1."""


class RankError(RunError):
    """Another process of a run that trains on several devices failed or died."""


class Interrupted(BaseException):
    """Ctrl-C. Exit status 130.

    Not a KeyboardInterrupt, which Lightning catches: it then ignores every further signal and exits 1.
    """

    status = 130
    reason = "interrupted"


class Terminated(Interrupted):
    """Told to leave by SIGTERM or SIGUSR1. Exit status 143, as shells give it for SIGTERM."""

    status = 143
    reason = "told to leave"


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The known names most like `name`, as the end of a sentence.

    >>> nearest("lrr", ["lr", "l1", "dropout"])
    'did you mean lr?'
    >>> nearest("zzz", ["b", "a"])
    'known are a, b'
    """
    names = sorted(set(known))
    matches = difflib.get_close_matches(name, names, n=count, cutoff=0.6)
    if matches:
        return f"did you mean {' or '.join(matches)}?"
    return f"known are {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
