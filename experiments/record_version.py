"""The version of a record: which repairs its numbers were made after, and what each repair changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Raised by a repair that changes a number, a split, an order or decoding for an unchanged configuration.
# Each run is tagged with it; a run without the tag is of version 1.
RECORD_VERSION = 2
RECORD_VERSION_TAG = "record_version"


@dataclass(frozen=True)
class Repair:
    """A repair after which an unchanged configuration may give another number.

    Attributes:
        version: The record version that it came with.
        what: What is different since, as a sentence without its full stop.
        concerns: Whether it can change the numbers of a run with these recorded params (flat keys, text
            values).
        before: Configuration keys, and the values with which they do what was done before the repair;
            empty where no key does.
    """

    version: int
    what: str
    concerns: Callable[[Mapping[str, str]], bool] = lambda params: True
    before: Mapping[str, str] = field(default_factory=dict)


# One entry for each repair. Keep each on lines of its own: many changes add to this list.
REPAIRS: tuple[Repair, ...] = ()
