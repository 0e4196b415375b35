"""The terminal names what was found, in the words of the data."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from darkroom.datamodules import Digits
from darkroom.experiments.analysis.dataset.findings import LabelIssue, Straddler
from darkroom.experiments.analysis.dataset.inspection import examine, sample_at
from darkroom.experiments.analysis.dataset.tables import print_findings


@pytest.fixture
def data() -> Digits:
    data = Digits()
    data.setup()
    return data


def printed(findings) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_findings(findings, console)
    return console.file.getvalue()


def test_pairs_are_named_by_split_id_and_label(data):
    images = data.splits["val"].images.clone()
    images[2] = data.splits["train"].images[8]
    data.splits["val"] = replace(data.splits["val"], images=images)
    lines = printed(examine("digits/cnn", data)).splitlines()
    for split, place in (("train", 8), ("val", 2)):
        store = data.splits[split]
        cells = [split, store.ids[place], str(int(store.targets[place]))]
        rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in lines if store.ids[place] in line]
        assert cells in rows


def test_of_long_lists_the_first_five_are_printed(data):
    images = data.splits["train"].images.clone()
    images[:20] = images[0]
    data.splits["train"] = replace(data.splits["train"], images=images)
    text = printed(examine("digits/cnn", data))
    assert "19 pairs of duplicates within a split" in text
    table = text.partition("duplicates within a split (the first 5)")[2]
    assert table.count(data.splits["train"].ids[0]) == 5


def test_groups_doubtful_labels_and_unreadable_images_are_printed(data):
    found = replace(
        examine("digits/cnn", data),
        straddlers=(Straddler("patient 4", {"train": 3, "test": 12}),),
        label_issues=(LabelIssue(sample_at(data, "val", 3), "seven", 0.914, 0.02),),
        skipped=(("a/b.jpg", "cut short"),),
    )
    text = printed(found)
    for words in ("1 group across splits", "patient 4", "3 train, 12 test", "seven", "0.91", "cut short"):
        assert words in text
    assert data.splits["val"].ids[3] in text


def test_names_are_text_and_never_markup(data):
    data.class_names = ("[red]", "[/nothing]", *data.class_names[2:])
    text = printed(examine("digits/cnn", data))
    assert "[red]" in text
    assert "[/nothing]" in text
