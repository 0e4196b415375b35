"""Local Parquet files in the hub's layout are read with their parts, classes and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from datamodules import HuggingFaceDataset

datasets = pytest.importorskip("datasets", reason="pip install darkroom[huggingface]")


@pytest.fixture
def write_set(tmp_path, write_image, monkeypatch):
    """Writes train.parquet and test.parquet with the given labels; returns the folder."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))

    def write(labels: dict[str, list[Any]], feature: Any) -> Path:
        folder = tmp_path / "set"
        folder.mkdir()
        for part, each in labels.items():
            files = [write_image(tmp_path / part / f"{number}.png") for number in range(len(each))]
            rows = {"picture": [str(path) for path in files], "label": each}
            features = datasets.Features({"picture": datasets.Image(), "label": feature})
            table = datasets.Dataset.from_dict(rows, features=features)
            table.to_parquet(folder / f"{part}-00000-of-00001.parquet")
        return folder

    return write


def prepared(path: Path, **arguments: Any) -> HuggingFaceDataset:
    data = HuggingFaceDataset(
        str(path), **{"image_size": 18, "cache": str(path.parent / "cache"), **arguments}
    )
    data.prepare_data()
    data.setup()
    return data


def test_named_classes_parts_and_pixels_are_the_sets(write_set, tmp_path) -> None:
    given = {"train": [0, 1, 2] * 10, "test": [2, 1, 0] * 4}
    folder = write_set(given, datasets.ClassLabel(names=["ant", "bee", "cat"]))
    data = prepared(folder, val_fraction=0.2, resize="squash", normalization="unit")
    assert (data.task, data.class_names) == ("multiclass", ("ant", "bee", "cat"))
    assert data.splits["test"].targets.tolist() == given["test"]
    assert len(data.splits["train"]) + len(data.splits["val"]) == 30
    picture = Image.open(tmp_path / "test" / "3.png").resize((18, 18), Image.Resampling.BILINEAR)
    expected = torch.tensor(list(picture.getdata())).T.view(3, 18, 18)
    ours = data.splits["test"].images[torch.tensor([3])][0].int()
    assert (ours - expected).abs().max() <= 2


def test_lists_of_labels_are_a_multilabel_task(write_set) -> None:
    feature = datasets.Sequence(datasets.ClassLabel(names=["red", "white"]))
    folder = write_set({"train": [[0], [0, 1], [], [1]] * 8}, feature)
    data = prepared(folder)
    assert data.task == "multilabel"
    counts = [sum(data.class_counts(split)[label] for split in data.splits) for label in (0, 1)]
    assert counts == [16, 16]


def test_a_missing_column_or_set_is_named(write_set, tmp_path) -> None:
    folder = write_set({"train": ["a", "b"] * 8}, datasets.Value("string"))
    with pytest.raises(ValueError, match=r"no column 'labels'.*it has picture, label"):
        prepared(folder, label_column="labels")
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        prepared(tmp_path / "nowhere")
