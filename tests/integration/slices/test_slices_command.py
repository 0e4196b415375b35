"""`darkroom slices` finds the site whose labels are wrong, and says plainly what it can't divide by."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from darkroom.experiments.errors import RequestError
from darkroom.experiments.tracking.run import RunRecord

RECIPE = """
name: sites/cnn
data:
  class_path: ImageTable
  init_args: {table: sites.csv, image_size: 8, resize: squash, grayscale: true, test_fraction: 0.5}
model: {class_path: ImageClassifier, init_args: {backbone_options: {widths: [4]}, lr: 0.02}}
trainer: {max_epochs: 6, monitor: val/loss}
"""


@pytest.fixture
def run(inside, darkroom, store) -> RunRecord:
    """One run on images of three sites, of which `south` labels at random; by the first test that asks."""
    with contextlib.suppress(RequestError):  # there is none yet
        return store.find_run("sites")
    random = np.random.default_rng(0)
    rows = []
    (inside.folder / "pictures").mkdir()
    for number in range(360):
        label, site = number % 2, ["north", "east", "south"][number // 2 % 3]
        side = 16 if number % 5 else 24
        pixels = random.integers(0, 60, (side, side), dtype=np.uint8) + np.uint8(150 * label)
        Image.fromarray(pixels).save(inside.folder / "pictures" / f"{number}.png")
        said = random.integers(0, 2) if site == "south" else label
        rows.append(
            {"image": f"pictures/{number}.png", "label": ["dark", "bright"][said], "site": site}
            | {"age": number % 90, "patient": f"p{number}"}
        )
    pd.DataFrame(rows).to_csv(inside.folder / "sites.csv", index=False)
    (inside.folder / "sites.yaml").write_text(RECIPE)
    answer = darkroom("train", "sites.yaml", "--data.cache=cache", "--mlflow.run_name=sites")
    assert answer.status == 0, answer.errors
    return store.find_run("sites")


def test_the_site_with_wrong_labels_comes_first_of_all_slices(run, darkroom, tmp_path) -> None:
    files = [tmp_path / name for name in ("slices.md", "slices.csv")]
    answer = darkroom("slices", "sites", *(f"--out={path}" for path in files))
    assert answer.status == 0, answer.errors
    assert "site: south" in answer.output
    count = len(run.predictions("test"))
    assert f"patient has {count} values and is left out; --by patient takes it" in one_line(answer.output)
    table = pd.read_csv(files[1])
    assert (table["by"][0], table["slice"][0], table["verdict"][0]) == ("site", "south", "worse")
    assert set(table["by"]) == {"class", "size", "brightness", "site", "age"}
    assert table.loc[table["by"] == "size", "slice"].tolist() in (["16 px", "24 px"], ["24 px", "16 px"])
    # Each division holds every image once.
    assert (table.groupby("by")["images"].sum() == count).all()
    for path in files:
        assert run.read_text(f"slices/test{path.suffix}") == path.read_text()


def test_numbers_of_a_slice_are_those_of_its_rows(run, darkroom, tmp_path, inside) -> None:
    answer = darkroom("slices", "sites", "--by=site", f"--out={tmp_path / 'slices.csv'}")
    assert answer.status == 0, answer.errors
    said = run.predictions("test").set_index("id")
    said["right"] = (said["prob_1"] > 0.5) == (said["target"] == 1)
    said["site"] = pd.read_csv(inside.folder / "sites.csv").set_index("image")["site"]
    expected = said.groupby("site")["right"].agg(["mean", "size"])
    table = pd.read_csv(tmp_path / "slices.csv").set_index("slice").loc[expected.index]
    np.testing.assert_allclose(table["accuracy"], expected["mean"])
    np.testing.assert_array_equal(table["images"], expected["size"])


def test_many_small_slices_are_said_to_be_too_small(run, darkroom) -> None:
    answer = darkroom("slices", "sites", "--by=patient")
    assert answer.status == 0, answer.errors
    words = one_line(answer.output)
    assert "no slice is large enough" in words
    assert f"and {len(run.predictions('test')) - 10} more" in words


def test_an_unknown_column_names_the_nearest_one(run, darkroom) -> None:
    answer = darkroom("slices", "sites", "--by=sites")
    assert answer.status == 2
    assert "did you mean site" in answer.errors


def test_without_its_images_a_run_is_judged_by_class_alone_and_says_so(run, darkroom, inside) -> None:
    table = inside.folder / "sites.csv"
    table.rename(table.with_name("elsewhere.csv"))
    try:
        answer = darkroom("slices", "sites")
        asked = darkroom("slices", "sites", "--by=site")
    finally:
        table.with_name("elsewhere.csv").rename(table)
    assert answer.status == 0, answer.errors
    assert "by class alone" in answer.output
    assert asked.status == 2
    assert "sites.csv is no file" in asked.errors


def test_images_of_one_size_have_no_slices_by_it(trained, darkroom) -> None:
    answer = darkroom("slices", trained, "--by=size")
    assert answer.status == 2
    assert "one size" in answer.errors
    usual = darkroom("slices", trained)
    assert usual.status == 0, usual.errors
    assert "class: 0" in usual.output
    assert "all images have one size" in usual.output


def test_images_that_are_not_those_judged_are_refused(run, darkroom, inside) -> None:
    table = inside.folder / "sites.csv"
    pd.read_csv(table)[:300].to_csv(inside.folder / "fewer.csv", index=False)
    answer = darkroom("slices", "sites", "--by=brightness", "--data.table=fewer.csv")
    assert answer.status == 2
    assert "the data lacks" in answer.errors


def one_line(text: str) -> str:
    """A terminal's lines as one."""
    return " ".join(text.split())
