"""Local Parquet files in the hub's layout are read with their parts, classes and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom.datamodules import HuggingFaceDataset
from darkroom.datamodules.sources.huggingface import check_labels

datasets = pytest.importorskip("datasets", reason="needs the extra huggingface")


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


def test_a_part_whose_labels_are_all_hidden_is_left_out_with_a_note(write_set) -> None:
    given = {"train": [0, 1, 2] * 10, "validation": [0, 1, 2], "test": [-1] * 6}
    data = prepared(write_set(given, datasets.ClassLabel(names=["ant", "bee", "cat"])))
    assert {part: len(store) for part, store in data.splits.items()} == {"train": 30, "val": 3}
    assert any("Part test has no labels" in note for note in data.notes)


def test_lists_of_hidden_labels_are_left_out_as_well(write_set) -> None:
    feature = datasets.Sequence(datasets.ClassLabel(names=["red", "white"]))
    data = prepared(write_set({"train": [[0], [0, 1], [], [1]] * 8, "test": [[-1]] * 4}, feature))
    assert "test" not in data.splits


def test_labels_that_are_all_hidden_where_they_are_trained_on_are_refused(write_set) -> None:
    folder = write_set({"train": [-1] * 4}, datasets.ClassLabel(names=["ant", "bee"]))
    with pytest.raises(ValueError, match="no labels to train on: all are -1"):
        prepared(folder)


@pytest.mark.parametrize("several", [False, True])
def test_a_single_hidden_label_is_refused_with_its_row(write_set, several: bool) -> None:
    feature: Any = datasets.ClassLabel(names=["ant", "bee", "cat"])
    labels: list[Any] = [0, 1, 2, -1, 0, 1, -1]
    if several:
        feature, labels = datasets.Sequence(feature), [[label] for label in labels]
    folder = write_set({"train": [labels[0], labels[1]], "test": labels}, feature)
    with pytest.raises(ValueError, match=r"0 to 2.*: 2 of 7 in part test \(row 3 has -1, row 6 has -1\)"):
        prepared(folder)


def test_minus_one_is_a_class_where_classes_are_numbers_without_names(write_set) -> None:
    folder = write_set({"train": [-1, 1] * 8, "test": [-1, -1]}, datasets.Value("int64"))
    data = prepared(folder)
    assert data.class_names == ("-1", "1")
    assert data.splits["test"].targets.tolist() == [0, 0]


def test_a_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 in part train \(row 1 has 2\)"):
        check_labels({"train": [0, 2]}, ["ant", "bee"])


def test_missing_labels_are_counted_with_their_part_and_first_rows(write_set) -> None:
    folder = write_set({"train": ["a", None, "b", " "] * 4, "test": ["a", None]}, datasets.Value("string"))
    expected = (
        r"no label: 8 of 16 in part train \(row 1, row 3, row 5, row 7, row 9 and 3 more\); "
        r"1 of 2 in part test \(row 1\)"
    )
    with pytest.raises(ValueError, match=expected):
        prepared(folder)


def test_one_parquet_file_is_trained_on(write_set) -> None:
    folder = write_set({"train": [0, 1] * 8, "test": [0]}, datasets.ClassLabel(names=["ant", "bee"]))
    data = prepared(folder / "train-00000-of-00001.parquet")
    assert {part: len(store) for part, store in data.splits.items()} == {"train": 14, "val": 2}
    with pytest.raises(ValueError, match="is one file, which has neither"):
        prepared(folder / "train-00000-of-00001.parquet", revision="main")


def test_blanks_around_a_label_are_none_of_it_and_case_alone_gets_a_note(write_set) -> None:
    folder = write_set({"train": ["cat", " cat", "Cat", "dog "] * 8}, datasets.Value("string"))
    data = prepared(folder)
    assert data.class_names == ("Cat", "cat", "dog")
    assert any(
        note.startswith("classes Cat (") and "differ in upper and lower case alone" in note
        for note in data.notes
    )
