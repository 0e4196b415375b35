"""A table's rows become images with labels, splits and groups; what is wrong in it is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from darkroom.datamodules import ImageTable


@pytest.fixture
def write_table(tmp_path, write_image):
    """Writes so many images, and a table of them with further columns."""

    def write(count: int = 60, suffix: str = ".csv", **columns: Any) -> Path:
        names = [f"pictures/{number:03d}.png" for number in range(count)]
        for name in names:
            write_image(tmp_path / name)
        frame = pd.DataFrame({"image": names, **columns})
        path = tmp_path / f"table{suffix}"
        if suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return path

    return write


def prepared(table: Path, **arguments: Any) -> ImageTable:
    data = ImageTable(str(table), **{"image_size": 8, "cache": str(table.parent / "cache"), **arguments})
    data.prepare_data()
    data.setup()
    return data


NAMES = ["ant", "bee", "cat"] * 20


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_one_label_column_is_a_multiclass_task(write_table, suffix: str) -> None:
    data = prepared(write_table(suffix=suffix, label=NAMES), test_fraction=0.2)
    assert (data.task, data.class_names) == ("multiclass", ("ant", "bee", "cat"))
    for store in data.splits.values():
        numbers = [int(Path(name).stem) for name in store.ids]
        assert [data.class_names[target] for target in store.targets] == [NAMES[number] for number in numbers]


def test_several_label_columns_are_labels_of_their_own(write_table) -> None:
    red, white = np.arange(60) % 2, np.arange(60) % 3 == 0
    data = prepared(write_table(red=red, white=white.astype(int)), label_columns=["red", "white"])
    assert (data.task, data.class_names) == ("multilabel", ("red", "white"))
    for store in data.splits.values():
        numbers = np.array([int(Path(name).stem) for name in store.ids])
        np.testing.assert_array_equal(store.targets.numpy(), np.stack([red, white], axis=1)[numbers])


def test_one_delimited_column_is_the_same_and_may_be_empty(write_table) -> None:
    given = ["red|white", "white", "", "red"] * 15
    data = prepared(write_table(label=given), label_delimiter="|")
    assert (data.task, data.class_names) == ("multilabel", ("red", "white"))
    expected = {"red|white": [1, 1], "white": [0, 1], "": [0, 0], "red": [1, 0]}
    for store in data.splits.values():
        for name, target in zip(store.ids, store.targets.tolist(), strict=True):
            assert target == expected[given[int(Path(name).stem)]]


def test_splits_are_the_tables_own(write_table) -> None:
    parts = ["train"] * 30 + ["valid"] * 15 + ["test"] * 15
    data = prepared(write_table(label=NAMES, part=parts), split_column="part")
    assert {name: len(store) for name, store in data.splits.items()} == {"train": 30, "test": 15, "val": 15}


def test_no_group_stands_on_both_sides(write_table) -> None:
    patients = [f"patient {number // 4}" for number in range(60)]
    table = write_table(label=NAMES, patient=patients)
    data = prepared(table, group_column="patient", test_fraction=0.3, val_fraction=0.3)
    groups = [set(store.groups) for store in data.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 15


def test_class_names_that_look_like_numbers_or_nothing_stay_names(write_table) -> None:
    data = prepared(write_table(label=["01", "1", "NA"] * 20))
    assert data.class_names == ("01", "1", "NA")


def test_a_group_that_the_tables_own_split_tears_apart_is_pointed_out(write_table) -> None:
    parts = ["train"] * 50 + ["test"] * 10
    table = write_table(label=NAMES, part=parts, patient=["one"] * 3 + ["two"] * 54 + ["one"] * 3)
    data = prepared(table, split_column="part", group_column="patient")
    assert any(note.startswith("Group one straddles splits") for note in data.notes)


@pytest.mark.parametrize(
    ("columns", "arguments", "named"),
    [
        ({"labels": NAMES}, {}, "no column 'label' .*did you mean labels"),
        ({"label": [*NAMES[:-1], None]}, {}, "no label for pictures/059.png in row 60 "),
        (
            {"label": NAMES, "part": ["val"] * 60},
            {"split_column": "part"},
            "some in train, found only 60 val",
        ),
        (
            {"label": NAMES, "part": ["trian"] * 60},
            {"split_column": "part"},
            "'trian' in part: expected train",
        ),
        (
            {"a": [0, 2] * 30, "b": [0, 1] * 30},
            {"label_columns": ["a", "b"]},
            "'2' in a for pictures/001.png",
        ),
    ],
)
def test_a_wrong_column_or_cell_is_named(write_table, columns, arguments, named) -> None:
    with pytest.raises(ValueError, match=named):
        prepared(write_table(**columns), **arguments)


def test_names_that_are_not_utf8_are_named_before_anything_is_decoded(write_table, tmp_path) -> None:
    table = write_table(label=NAMES)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/pictures/caf\xe9.png"))
    (tmp_path / "pictures" / "007.png").rename(odd)
    (tmp_path / "pictures" / "007.png").symlink_to(odd)
    with pytest.raises(ValueError, match=r"1 file has a name .* pictures/caf\\xe9.png.*; rename it"):
        prepared(table)
    assert not (tmp_path / "cache").exists()
    table.write_bytes(b"image,label\npictures/caf\xe9.png,ant\n")
    with pytest.raises(ValueError, match=r"table.csv is not in UTF-8 .* save it so"):
        prepared(table)


def test_rows_that_contradict_each_other_are_named_and_repeated_ones_taken_once(write_table) -> None:
    table = write_table(label=NAMES)
    frame = pd.read_csv(table)
    pd.concat([frame, frame[:5]]).to_csv(table, index=False)
    assert sum(map(len, prepared(table).splits.values())) == 60
    frame.loc[60] = ["pictures/007.png", "cat"]
    frame.to_csv(table, index=False)
    with pytest.raises(ValueError, match=r"contradict each other, for pictures/007.png"):
        prepared(table)


def test_a_file_that_is_spelled_in_two_ways_is_one_file(write_table, tmp_path) -> None:
    table = write_table(label=NAMES)
    whole = table.read_text()
    table.write_text(whole + "./pictures/007.png,bee\n")
    assert sum(map(len, prepared(table, cache=str(tmp_path / "other")).splits.values())) == 60
    table.write_text(whole + "./pictures/007.png,cat\npictures/../pictures/008.png,ant\n")
    with pytest.raises(
        ValueError, match=r"contradict each other, for pictures/007.png \(label in rows 8, 61 "
    ):
        prepared(table)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (
            ["pictures/000.png,ant", ",bee", "pictures/001.png,bee", " ,cat"],
            r"has no image in rows 2, 4 below",
        ),
        (["pictures/000.png,ant,", "pictures/001.png,bee"], "more cells than the 2 of its header in row 1 "),
        (
            ["pictures/000.png,ant", "pictures/001.png,bee, red"],
            "than the 2 of its header in row 2 .* in quotes",
        ),
    ],
)
def test_rows_that_are_too_long_or_lack_an_image_are_named_by_number(write_table, lines, named) -> None:
    table = write_table(label=NAMES)
    table.write_text("\n".join(["image,label", *lines]))
    with pytest.raises(ValueError, match=named):
        prepared(table)


def test_a_parquet_that_is_none_is_refused(write_table) -> None:
    table = write_table(label=NAMES)
    table = table.rename(table.with_suffix(".parquet"))
    table.write_text("image\npictures/000.png,ant\n")
    with pytest.raises(ValueError, match=r"table.parquet can't be read as a table"):
        prepared(table)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_label_columns_may_say_false_and_true(write_table, suffix) -> None:
    red, white = np.arange(60) % 2 == 0, np.arange(60) % 3 == 0
    data = prepared(write_table(suffix=suffix, red=red, white=white), label_columns=["red", "white"])
    for store in data.splits.values():
        numbers = np.array([int(Path(name).stem) for name in store.ids])
        np.testing.assert_array_equal(store.targets.numpy(), np.stack([red, white], axis=1)[numbers])


def test_paths_of_windows_are_pointed_out(write_table) -> None:
    table = write_table(label=NAMES)
    table.write_text(table.read_text().replace("pictures/", "pictures\\"))
    with pytest.raises(FileNotFoundError, match=r"with / in place of \\ 60 of them would be: write paths so"):
        prepared(table)


def test_counting_out_images_of_each_class_is_refused_where_they_have_several_labels(
    write_table, tmp_path
) -> None:
    table = write_table(label=["red|white", "white"] * 30)
    with pytest.raises(ValueError, match=r"data.train_per_class=5 .* 2 labels.*: use data.train_fraction"):
        prepared(table, label_delimiter="|", train_per_class=5)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_metadata_is_every_other_column_by_sample_id(write_table, suffix) -> None:
    table = write_table(suffix=suffix, label=NAMES, part=["train"] * 50 + ["test"] * 10, site=["a", "b"] * 30)
    data = prepared(table, split_column="part")
    metadata = data.metadata()
    assert list(metadata.columns) == ["site"]
    assert metadata.loc[list(data.splits["test"].ids), "site"].tolist() == ["a", "b"] * 5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["daisy", "rose"] * 29 + ["dasiy"] * 2,
            "class dasiy has 2 images and is spelled like daisy, which has 29",
        ),
        (["ant"] * 28 + ["bee"] * 29 + ["antt"] * 3, "class antt has 3 images and is spelled like ant"),
        (
            ["Ant", "ant", "bee"] * 20,
            "classes Ant (20 images) and ant (20 images) differ in upper and lower case",
        ),
    ],
)
def test_a_misspelled_class_is_pointed_out(write_table, given, said) -> None:
    notes = prepared(write_table(label=given)).notes
    assert [said in note for note in notes if "typo" in note] == [True]


def test_blanks_around_a_class_are_no_part_of_its_name(write_table) -> None:
    data = prepared(write_table(label=[" ant", "ant", "bee "] * 20))
    assert data.class_names == ("ant", "bee")
    assert not any("typo" in note for note in data.notes)
    with pytest.raises(ValueError, match=r"no label for pictures/000.png"):
        prepared(write_table(label=["  ", *NAMES[1:]]))


def test_files_that_are_missing_or_outside_are_refused(write_table) -> None:
    table = write_table(label=NAMES)
    frame = pd.read_csv(table)
    frame.loc[3, "image"] = "pictures/gone.png"
    frame.to_csv(table, index=False)
    with pytest.raises(FileNotFoundError, match=r"pictures/gone.png"):
        prepared(table)
    frame.loc[3, "image"] = "../../etc/passwd"
    frame.to_csv(table, index=False)
    with pytest.raises(
        ValueError, match=r"leaves .*to a folder above both, and write paths from there, without \.\."
    ):
        prepared(table)
    with pytest.raises(FileNotFoundError, match="is no file"):
        prepared(table.with_name("nowhere.csv"))


def test_what_a_linked_folder_calls_for_is_said_and_works(write_table, tmp_path, tmp_path_factory) -> None:
    table = write_table(label=NAMES)
    whole = table.read_text()
    elsewhere = tmp_path_factory.mktemp("disk") / "images"
    (tmp_path / "pictures").rename(elsewhere)
    (tmp_path / "pictures").symlink_to(elsewhere)
    said = rf"pictures is a link to {elsewhere}; set data.root to that, and leave pictures/ out of the paths"
    with pytest.raises(ValueError, match=said):
        prepared(table)
    table.write_text(whole.replace("pictures/", ""))
    assert sum(map(len, prepared(table, root=str(elsewhere)).splits.values())) == 60
    # A link that has the name of what it points to.
    (tmp_path / "images").symlink_to(elsewhere)
    table.write_text(whole.replace("pictures/", "images/"))
    with pytest.raises(ValueError, match=rf"a link to {elsewhere}; set data.root to {elsewhere.parent}$"):
        prepared(table)
    assert sum(map(len, prepared(table, root=str(elsewhere.parent)).splits.values())) == 60
    # Whole paths, and those of single files.
    table.write_text(whole.replace("pictures/", f"{elsewhere}/"))
    with pytest.raises(ValueError, match=rf"set data.root to a folder above, such as {elsewhere}$"):
        prepared(table)
    assert sum(map(len, prepared(table, root=str(elsewhere)).splits.values())) == 60
    (tmp_path / "000.png").symlink_to(elsewhere / "007.png")
    table.write_text("image,label\n000.png,ant\n")
    with pytest.raises(ValueError, match=rf"set data.root to {elsewhere} and write 007.png"):
        prepared(table)


@pytest.mark.skipif("DARKROOM_DATA" not in os.environ, reason="DARKROOM_DATA names no folder of real images")
def test_the_tiles_of_blood_smears_are_read(tmp_path) -> None:
    table = Path(os.environ["DARKROOM_DATA"]) / "bccd_tiles_multilabel" / "labels.csv"
    data = ImageTable(
        str(table),
        image_column="file",
        label_columns=["RBC", "WBC", "Platelets"],
        split_column="split",
        image_size=32,
        cache=str(tmp_path),
    )
    data.prepare_data()
    data.setup()
    assert {name: len(store) for name, store in data.splits.items()} == {
        "train": 2460,
        "test": 864,
        "val": 1044,
    }
    frame = pd.read_csv(table)
    assert (
        data.class_counts("test")
        == frame[frame["split"] == "test"][["RBC", "WBC", "Platelets"]].sum().tolist()
    )


@pytest.mark.parametrize(
    ("order", "names"), [("natural", ("1", "2", "10", "11")), ("text", ("1", "10", "11", "2"))]
)
def test_numbers_are_sorted_by_value_unless_text_is_asked_for(write_table, order, names) -> None:
    given = ["10", "2", "1", "11"] * 15
    data = prepared(write_table(label=given), class_order=order)
    several = prepared(write_table(label=given), class_order=order, label_delimiter="|")
    assert data.class_names == several.class_names == names
    for name, target in zip(data.splits["train"].ids, data.splits["train"].targets.tolist(), strict=True):
        assert names[target] == given[int(Path(name).stem)]


def test_names_in_the_other_unicode_form_lead_to_their_files_labels_and_weights(
    write_table, tmp_path
) -> None:
    table = write_table(label=["ros\u00e9", "rose\u0301", "red"] * 20)
    (tmp_path / "pictures").rename(tmp_path / "e\u0301te\u0301")  # as macOS stores it
    frame = pd.read_csv(table)
    frame["image"] = frame["image"].str.replace("pictures", "\u00e9t\u00e9")
    frame.to_csv(table, index=False)
    weights = pd.DataFrame({"id": frame["image"], "weight": np.arange(60) + 1.0})
    weights.to_csv(tmp_path / "weights.csv", index=False)
    data = prepared(table, sample_weights=str(tmp_path / "weights.csv"))
    assert data.class_names == ("red", "ros\u00e9")
    ids = data.splits["train"].ids
    assert all(name.startswith("e\u0301te\u0301/") for name in ids)
    assert data.sample_weights is not None
    assert data.sample_weights.tolist() == [int(Path(name).stem) + 1 for name in ids]
