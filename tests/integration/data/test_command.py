"""`darkroom data` tells, draws and refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from support.html import shown_in_a_browser

RNG = np.random.default_rng(0)


@pytest.fixture
def mnist_with_a_leak(tmp_path):
    """Forty images of noise to learn and forty to test, of which one is both."""
    images = RNG.integers(0, 256, (80, 28, 28), dtype=np.uint8)
    images[50] = images[3]
    for prefix, part in (("train", images[:40]), ("t10k", images[40:])):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", part)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(40, dtype=np.uint8) % 10)
    return ["digits/cnn", "--data=MNIST", f"--data.root={tmp_path}", "--data.val_fraction=0"]


def test_it_counts_every_class_and_split_and_writes_page_and_json(darkroom, inside):
    answer = darkroom("data", "digits/cnn")
    assert answer.status == 0, answer.errors
    assert "1,797 grey images of 8x8 pixels, 10 classes (multiclass)" in answer.output
    rows = re.findall(r"│ (\d)\s+│ +(\d+) │ +(\d+) │ +(\d+) │", answer.output)
    assert len(rows) == 10
    counts = np.array(rows, dtype=int)[:, 1:]
    assert counts.sum() == 1797
    assert "no duplicates across splits" in answer.output
    found = json.loads((inside.folder / "digits-cnn-data.json").read_text())
    assert [found["class_counts"][split] for split in ("train", "val", "test")] == counts.T.tolist()
    assert "<h2>Samples</h2>" in (inside.folder / "digits-cnn-data.html").read_text()


def test_its_page_shows_no_error_in_a_browser_and_its_counts_sort(darkroom, inside, tmp_path):
    assert darkroom("data", "digits/cnn", "--out", "sorted.html").status == 0
    page = inside.folder / "sorted.html"
    click = "<script>document.querySelectorAll('table.sortable th')[1].click()</script>"
    page.write_text(page.read_text().replace("</body>", f"{click}</body>"))
    shown = shown_in_a_browser(page, tmp_path / "profile").partition("</table>")[0]
    counts = [
        int(count.replace(",", ""))
        for count in re.findall(r"<tr><td class=\"word\">\w+</td><td>([\d,]+)</td>", shown)
    ]
    assert len(counts) == 11
    assert counts[:10] == sorted(counts[:10])
    assert counts[10] == sum(counts[:10])


def test_keys_change_what_is_looked_at(darkroom, inside):
    answer = darkroom("data", "digits/cnn", "--data.val_fraction=0.5", "--out", "half.html")
    assert answer.status == 0, answer.errors
    found = json.loads((inside.folder / "half.json").read_text())
    assert (
        0.4 < found["num_images"]["val"] / (found["num_images"]["train"] + found["num_images"]["val"]) < 0.6
    )


def test_a_leak_is_told_and_with_strict_it_is_exit_status_1(darkroom, inside, mnist_with_a_leak):
    told = darkroom("data", *mnist_with_a_leak, "--out", "leak.html")
    assert told.status == 0, told.errors
    assert "1 pair of duplicate images across splits" in told.output
    assert "train/00003" in told.output
    (inside.folder / "leak.html").unlink()
    refused = darkroom("data", *mnist_with_a_leak, "--out", "leak.html", "--strict")
    assert refused.status == 1
    assert refused.errors.startswith("darkroom: 1 pair of duplicate images across splits")
    assert len(refused.errors.strip().splitlines()) == 1
    assert (inside.folder / "leak.html").is_file()


def test_without_a_leak_strict_changes_nothing(darkroom):
    assert darkroom("data", "digits/cnn", "--strict").status == 0


@pytest.mark.extra("cleanlab")
def test_labels_that_a_recorded_run_doubts_are_listed(darkroom, trained, trained_run, inside):
    answer = darkroom("data", "digits/cnn", f"--labels={trained[:10]}", "--out", "doubts.html")
    assert answer.status == 0, answer.errors
    issues = json.loads((inside.folder / "doubts.json").read_text())["label_issues"]
    assert f"{len(issues)} label" in answer.output
    predictions = trained_run.predictions("val").set_index("id")
    for issue in issues:
        row = predictions.loc[issue["sample"]["id"]]
        assert issue["sample"]["split"] == "val"
        assert issue["confidence"] == pytest.approx(row.filter(like="prob_").max())
        assert issue["given_confidence"] == pytest.approx(row[f"prob_{int(row['target'])}"])


MISTAKES = [
    (["digits/cn"], ["digits/cn", "digits/cnn"]),
    (["mnist/lenet5", "--data.root=empty", "--data.download=false"], ["empty", "idx", "data.root"]),
    (["digits/cnn", "--data.batch_size=0"], ["data.batch_size", "at least 1"]),
    (["digits/cnn", "--out", "page.txt"], ["--out", ".html", "page.txt"]),
    (["digits/cnn", "--out", "nowhere/page.html"], ["--out", "nowhere"]),
    pytest.param(
        ["digits/cnn", "--labels", "no-such-run"],
        ["no-such-run", "darkroom ui"],
        marks=pytest.mark.extra("cleanlab"),
    ),
]


@pytest.mark.parametrize(("arguments", "named"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_a_mistake_is_one_paragraph_that_names_what_would_be_right(arguments, named, darkroom):
    answer = darkroom("data", *arguments)
    assert answer.status == 2
    assert len(answer.errors.strip().splitlines()) == 1
    for word in named:
        assert word in answer.errors


@pytest.mark.extra("cleanlab")
def test_a_run_of_other_classes_and_one_of_other_images_are_refused(darkroom, trained, mnist_with_a_leak):
    other_images = darkroom("data", *mnist_with_a_leak, "--labels", trained)
    assert other_images.status == 2
    assert "not in this data" in other_images.errors


def write_idx(path, array) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + torch.from_numpy(array).numpy().tobytes())
