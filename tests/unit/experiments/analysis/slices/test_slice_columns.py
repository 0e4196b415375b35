"""Every image is in exactly one slice of a column, whatever its numbers are like."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from darkroom.experiments.analysis.slices.slicing import by_column, by_quarters

NUMBERS = {
    "spread": np.random.default_rng(0).random(103),
    "mostly the least": np.array([0.0] * 90 + list(range(1, 11))),
    "mostly the most": np.array([100.0] * 90 + list(range(1, 11))),
    "few": np.array([1.0, 2, 2, 3] * 10),
    "with missing ones": np.array([*np.arange(40.0), np.nan, np.nan]),
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_quarters_hold_each_image_once_in_order(numbers: np.ndarray) -> None:
    slices = by_quarters("age", numbers)
    assert 2 <= len(slices) <= 5
    assert (np.sum([each.members for each in slices], axis=0) == 1).all()
    known = [numbers[each.members] for each in slices if each.name != "missing"]
    assert all(low.max() < high.min() for low, high in pairwise(known))
    if "missing" in [each.name for each in slices]:
        assert np.isnan(numbers[slices[-1].members]).all()


def test_quarters_of_different_numbers_are_equally_large() -> None:
    sizes = [each.members.sum() for each in by_quarters("age", NUMBERS["spread"])]
    assert len(sizes) == 4
    assert max(sizes) - min(sizes) <= 1


def test_a_column_of_names_has_a_slice_for_each_and_of_many_numbers_four() -> None:
    names = by_column(pd.Series(["b", "01", None, "b"], name="site"))
    assert {each.name: each.members.sum() for each in names} == {"01": 1, "b": 2, "missing": 1}
    assert len(by_column(pd.Series([str(number) for number in range(50)], name="age"))) == 4
    assert len(by_column(pd.Series(["0", "1"] * 20, name="scanner"))) == 2
