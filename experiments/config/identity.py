"""Which keys identify a configuration; equality of two configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .keys import flatten

PLACES = ("data.root", "data.table", "data.path", "data.cache")  # where files lie says nothing of a run
ASIDE = ("mlflow", "sweep", "claim")  # sections that no number depends on
INERT = ("data.download", "trainer.progress", *PLACES)


def keys_that_matter(config: Mapping[str, Any], *varied: str) -> dict[str, Any]:
    """The keys of a configuration on which numbers depend, but for those that vary, flat."""
    sections = {key: value for key, value in config.items() if key not in ASIDE}
    return {key: value for key, value in flatten(sections).items() if key not in (*INERT, *varied)}


def configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs of one experiment have in common: everything but the seed and what is inert."""
    return keys_that_matter(config, "seed", "data.seed")
