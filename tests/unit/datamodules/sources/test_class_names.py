"""Names that are likely typos are said, and those that only look alike are not."""

from __future__ import annotations

import numpy as np
import pytest

from darkroom.datamodules.sources.class_names import MAX_COMPARED, likely_typos


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"ant": 100, "antt": 10}, True),
        ({"ant": 100, "antt": 11}, False),
        ({"ant": 4, "antt": 3}, True),
        ({"ant": 3, "antt": 3}, False),
        ({"ant": 100, "bee": 1}, False),
        ({"ant": 100, "ants": 0}, False),
        ({"Ant": 50, "ant": 50}, True),
        ({"grade 1": 100, "grade 2": 1}, False),
        ({"10": 1, "100": 90}, False),
        ({"ant": 100, "ant1": 1}, True),
    ],
)
def test_a_name_is_doubted_if_rare_beside_one_much_like_it_or_different_in_case_alone(counts, said) -> None:
    assert bool(likely_typos(list(counts), np.array(list(counts.values())))) == said


def test_few_are_said_however_many_there_are_and_many_classes_take_no_time() -> None:
    names = [f"flower{sign}{other}" for sign in "abcdefghij" for other in "klmnopqrst"]
    notes = likely_typos(names, np.array([1] * 99 + [1000]))
    assert len(notes) == 6
    assert notes[-1] == "in all, 99 names of classes look so"
    many = [f"flower {number:x}" for number in range(MAX_COMPARED)] + ["rose", "Rose"]
    assert len(likely_typos(many, np.array([1, 9] * (len(many) // 2)))) == 1
