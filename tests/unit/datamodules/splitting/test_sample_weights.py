"""Images are drawn by the weights that a file gives them; an invalid file is refused with what it lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from darkroom.datamodules import Digits


def weighted(path: Path, weights: pd.Series, **options) -> Digits:
    """Digits by a file that gives their training images these weights, in order."""
    weights.rename("weight").rename_axis("id").reset_index().to_csv(path, index=False)
    data = Digits(sample_weights=str(path), **options)
    data.setup()
    return data


@pytest.fixture(scope="module")
def plain() -> Digits:
    data = Digits()
    data.setup()
    return data


def drawn(data: Digits, epochs: int) -> torch.Tensor:
    """How often each training image is, in so many epochs."""
    loader = data.train_dataloader()
    places = torch.cat([batch.indices for _ in range(epochs) for batch in loader])
    return torch.bincount(places, minlength=len(data.splits["train"]))


def test_images_are_drawn_in_proportion_to_their_weights(tmp_path: Path, plain: Digits) -> None:
    ids = plain.splits["train"].ids
    weights = pd.Series(np.arange(len(ids)) % 3, index=ids)
    shuffled = weights.sample(frac=1, random_state=0)  # rows in any order
    counts = drawn(weighted(tmp_path / "weights.csv", shuffled), epochs=20)
    shares = [float(counts[place::3].sum() / counts.sum()) for place in range(3)]
    assert shares[0] == 0
    assert shares[1:] == pytest.approx([1 / 3, 2 / 3], abs=0.02)


def test_balanced_sampling_weighs_within_what_the_file_weighs(tmp_path: Path, plain: Digits) -> None:
    targets = plain.splits["train"].targets
    weights = pd.Series(np.where(targets == 0, 9.0, 1.0), index=plain.splits["train"].ids)
    data = weighted(tmp_path / "weights.csv", weights, sampling="balanced")
    zeros = drawn(data, epochs=20)[targets == 0].sum()
    assert float(zeros / (20 * len(targets))) == pytest.approx(0.5, abs=0.02)


def test_images_that_come_several_times_have_one_weight(tmp_path: Path, plain: Digits) -> None:
    weights = pd.Series(1.0, index=plain.splits["train"].ids)
    data = weighted(tmp_path / "weights.csv", weights, bootstrap=True)
    assert len(data.splits["train"].ids) > len(set(data.splits["train"].ids))
    assert data.sample_weights is not None
    assert len(data.sample_weights) == len(data.splits["train"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.rename(columns={"weight": "w"}), "has no column weight; it has id, w"),
        (lambda frame: frame[5:], "has no weight for 5 of"),
        (lambda frame: pd.concat([frame, frame[:1]]), "more than one weight"),
        (lambda frame: frame.assign(weight=-1.0), "weights must be numbers of at least 0"),
        (lambda frame: frame.assign(weight="much"), "weights must be numbers of at least 0"),
        (lambda frame: frame.assign(weight=0.0), "all training images have a weight of 0"),
    ],
)
def test_a_file_that_will_not_do_says_why(tmp_path: Path, plain: Digits, change, said: str) -> None:
    path = tmp_path / "weights.csv"
    change(pd.DataFrame({"id": list(plain.splits["train"].ids), "weight": 1.0})).to_csv(path, index=False)
    with pytest.raises(ValueError, match=said):
        Digits(sample_weights=str(path)).setup()


def test_what_is_no_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        Digits(sample_weights=str(tmp_path / "absent.csv")).setup()
    (tmp_path / "weights.parquet").write_text("no table")
    with pytest.raises(ValueError, match="can't be read as CSV or Parquet"):
        Digits(sample_weights=str(tmp_path / "weights.parquet")).setup()
