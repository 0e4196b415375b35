"""`darkroom learning-curve` trains each point once, below one run, and goes on where it stopped."""

from __future__ import annotations

import pandas as pd
import pytest

from darkroom.datamodules import Digits

RECIPE = """
name: curves/tiny
data: {class_path: Digits, init_args: {batch_size: 64}}
model:
  class_path: ImageClassifier
  init_args: {backbone: small_cnn, backbone_options: {widths: [8]}, lr: 0.01}
trainer: {max_epochs: 1, precision: 32-true, progress: false}
mlflow: {system_metrics: false}
"""


@pytest.fixture
def recipe(inside) -> str:
    (inside.folder / "tiny.yaml").write_text(RECIPE)
    return "tiny.yaml"


def test_smaller_parts_of_the_training_images_are_parts_of_larger_ones_of_each_class():
    parts = []
    for fraction in (0.1, 0.3, 1.0):
        data = Digits(train_fraction=fraction)
        data.setup()
        parts.append(data.splits)
        assert min(data.class_counts()) > 0
    ids = [set(splits["train"].ids) for splits in parts]
    assert ids[0] < ids[1] < ids[2]
    assert {tuple(splits["test"].ids) for splits in parts} == {tuple(parts[0]["test"].ids)}
    assert {tuple(splits["val"].ids) for splits in parts} == {tuple(parts[0]["val"].ids)}


def test_the_same_command_with_more_trains_only_what_is_new_and_then_fits(recipe, darkroom, store):
    answer = darkroom("learning-curve", recipe, "--fractions", "0.2", "0.5")
    assert answer.status == 0, answer.errors
    assert "need at least 3 fractions, there are 2" in " ".join(answer.output.split())
    before = {run.run_id for run in store.runs_of("curves/tiny")}
    assert len(before) == 3
    answer = darkroom("learning-curve", recipe, "--fractions", "1", "0.5", "0.2")
    assert answer.status == 0, answer.errors
    printed = " ".join(answer.output.split())
    assert "fraction 1.0, seed 0" in printed
    assert "fraction 0.2, seed 0" not in printed
    runs = store.runs_of("curves/tiny")
    (new,) = [run for run in runs if run.run_id not in before]
    (parent,) = [run for run in runs if run.tags.get("role") == "learning-curve"]
    assert parent.status == "FINISHED"
    children = store.child_runs(parent)
    assert len(children) == 3
    assert new.run_id in {run.run_id for run in children}
    frame = pd.read_csv(parent.download("learning_curve.csv")).set_index("run")
    assert list(frame["fraction"]) == [0.2, 0.5, 1.0]
    for run in children:
        assert frame.loc[run.run_id, "value"] == run.metrics["test/accuracy"]
        assert frame.loc[run.run_id, "images"] == int(run.params["num_train_images"])
    assert f"doubling the training images to {2 * frame['images'].max():,} would raise" in printed
    assert parent.metrics["curve/c"] > 0
    assert "there is no interval: each fraction has a single run" in printed
    assert parent.download("learning_curve.png").stat().st_size > 0
    answer = darkroom("compare", parent.run_id)
    assert "train_fraction=0.2" in answer.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fractions", "0.1", "2"], "--fractions must lie in (0, 1], got 2.0"),
        (["--data.train_fraction=0.5"], "is what a learning curve varies"),
        (["--seed=1"], "is what a learning curve varies"),
        (["--metric=acuracy"], "did you mean accuracy"),
        (["--mlflow.enabled=false"], "must be true"),
        (["--model.lrr=1"], "did you mean model.lr"),
    ],
)
def test_what_is_no_learning_curve_is_refused_before_anything_is_trained(
    arguments, words, recipe, darkroom, store
):
    before = len(store.runs_of("curves/tiny"))
    answer = darkroom("learning-curve", recipe, *arguments)
    assert answer.status == 2
    assert words in answer.errors
    assert answer.errors.count("\n") == 1
    assert len(store.runs_of("curves/tiny")) == before
