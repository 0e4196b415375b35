"""The page shows what was found, needs nothing but itself, and takes no name for markup."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from support.html import Page

from darkroom.datamodules import Digits
from darkroom.experiments.analysis.dataset.findings import LabelIssue, Straddler
from darkroom.experiments.analysis.dataset.html_report import MAX_SHOWN, NUM_AUGMENTED, PER_CLASS, render_page
from darkroom.experiments.analysis.dataset.inspection import examine, sample_at
from darkroom.experiments.reporting.html_page import data_uri
from darkroom.experiments.reporting.svg import histogram


class Pictures(Page):
    """That of the data, whose histograms have lines."""

    VOID = (*Page.VOID, "link", "line", "polyline")


@pytest.fixture
def data() -> Digits:
    """Digits of which one of train stands in test as well, under another label."""
    data = Digits()
    data.setup()
    images, targets = data.splits["test"].images.clone(), data.splits["test"].targets.clone()
    images[5] = data.splits["train"].images[8]
    targets[5] = (data.splits["train"].targets[8] + 1) % 10
    data.splits["test"] = replace(data.splits["test"], images=images, targets=targets)
    return data


def test_it_is_one_well_formed_file_that_fetches_nothing(data):
    page = Pictures(render_page(examine("digits/cnn", data), data))
    assert page.open == []
    assert len(page.fetched) > 100
    assert all(source.startswith("data:image/") for source in page.fetched)


def test_it_has_the_first_nine_ten_of_each_class_and_the_augmented_ones(data):
    page = render_page(examine("digits/cnn", data), data)
    first = section(page, "First images").pictures
    train = data.splits["train"]
    assert [each["title"].split()[0] for each in first] == list(train.ids[:9])
    for place, each in enumerate(first):
        np.testing.assert_array_equal(decode(each["src"]), train.images[place, 0])
    samples = section(page, "Samples").pictures
    assert len(samples) == 10 * PER_CLASS
    labels = [re.search(r", (\d)\)", each["title"])[1] for each in samples]
    assert labels == [str(label) for label in range(10) for _ in range(PER_CLASS)]
    augmented = section(page, "Augmented").pictures
    assert len(augmented) == 1 + NUM_AUGMENTED
    np.testing.assert_array_equal(decode(augmented[0]["src"]), train.images[0, 0])


def test_a_pair_is_shown_with_both_pictures_ids_splits_and_labels(data):
    page = render_page(examine("digits/cnn", data), data)
    train, test = data.splits["train"], data.splits["test"]
    for heading in ("Duplicates across splits", "Duplicates whose labels differ"):
        one, other = section(page, heading).pictures
        assert one["title"] == f"{train.ids[8]} (train, {train.targets[8]})"
        assert other["title"] == f"{test.ids[5]} (test, {test.targets[5]})"
        assert one["src"] == other["src"]
    assert "1 pair of duplicate images across splits" in page


def test_sections_without_anything_to_show_are_left_out(data):
    page = render_page(examine("digits/cnn", data), data)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert "Outliers" not in headings
    assert "Groups across splits" not in headings
    assert "Likely label errors" not in headings


def test_groups_doubtful_labels_and_unreadable_images_are_shown(data):
    found = examine("digits/cnn", data)
    issue = LabelIssue(sample_at(data, "val", 3), "seven", 0.91, 0.02)
    found = replace(
        found,
        straddlers=(Straddler("patient 4", {"train": 3, "test": 12}),),
        label_issues=(issue,),
        skipped=(("a/b.jpg", "cut short"),),
    )
    page = render_page(found, data)
    assert re.search(r"patient 4</td><td>3</td><td class=\"bad\">0</td><td>12</td>", page)
    assert "rather seven? 0.91 against 0.02" in page
    assert section(page, "Likely label errors").pictures[0]["title"].startswith(data.splits["val"].ids[3])
    assert 'a/b.jpg</td><td class="word">cut short' in page


def test_names_are_text_and_never_markup(data):
    data.class_names = ("<script>alert(1)</script>", "\"quoted\" & 'co'", *data.class_names[2:])
    page = render_page(examine("<i>digits</i>", data), data)
    assert "<script>alert" not in page
    assert "<i>digits" not in page
    assert Pictures(page).open == []


def test_of_many_pairs_some_are_shown_and_all_are_counted(data):
    images = data.splits["train"].images.clone()
    images[:200] = images[0]
    data.splits["train"] = replace(data.splits["train"], images=images)
    page = render_page(examine("digits/cnn", data), data)
    assert f"199 pairs, the most alike first; {MAX_SHOWN} are shown." in page
    assert len(section(page, "Duplicates within a split").pictures) == 2 * MAX_SHOWN


@pytest.mark.parametrize(
    ("shape", "mode", "size"),
    [((1, 8, 8), "L", (8, 8)), ((3, 20, 30), "RGB", (30, 20)), ((3, 200, 400), "RGB", (128, 64))],
)
def test_small_images_are_kept_exactly_and_large_ones_made_small(shape, mode, size):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.open(io.BytesIO(base64.b64decode(data_uri(pixels).partition(",")[2])))
    assert (image.mode, image.size) == (mode, size)
    if max(shape) < 64:
        expected = pixels[0] if shape[0] == 1 else pixels.transpose(1, 2, 0)
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_histogram_has_the_heights_of_numpys():
    values = np.random.default_rng(0).normal(size=400)
    svg = ElementTree.fromstring(histogram({"train": values}, {"train": "red"}))
    points = svg.find("polyline").get("points").split()[1:-1]  # between the two feet
    heights = [90 - float(point.partition(",")[2]) for point in points[::2]]
    counts, _ = np.histogram(values, 20)
    np.testing.assert_allclose(heights, 90 * counts / counts.max(), atol=0.06)


def test_a_histogram_of_one_value_is_drawn():
    svg = histogram({"train": np.full(30, 0.5)}, {"train": "red"}, log=True)
    assert "nan" not in svg
    ElementTree.fromstring(svg)


def section(page: str, heading: str) -> Pictures:
    body = page.partition(f"<h2>{heading}</h2>")[2].partition("<h2>")[0]
    return Pictures(body.partition("</body>")[0])


def decode(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_images_of_other_channels_are_shown_by_their_first():
    two = np.stack([np.full((8, 8), 7, np.uint8), np.full((8, 8), 99, np.uint8)])
    np.testing.assert_array_equal(decode(data_uri(two)), two[0])
