"""Bagging: members trained on bootstrap samples, told apart by seed, and soft voting over them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from darkroom.datamodules.splitting.bootstrap import bootstrap_counts
from darkroom.experiments.cli.main import main


def test_members_record_their_bootstrap_samples_and_what_is_made_of_them_says_that_it_is_bagging(
    bagged_store, capsys
):
    runs = [run for run in bagged_store.runs_of("digits/cnn") if run.tags.get("role") != "ensemble"]
    assert len(runs) == 2
    for run in runs:
        parts = pd.read_parquet(run.download("data/split.parquet")).groupby("split")
        train = parts.get_group("train")["id"].value_counts()
        assert int(run.params["num_train_images"]) == train.sum()
        counts = bootstrap_counts(list(train.index), np.zeros(len(train), np.int64), int(run.params["seed"]))
        np.testing.assert_array_equal(train, counts)
    assert main(["ensemble", "digits/cnn"]) == 0
    assert "its members were trained on bootstrap samples" in " ".join(capsys.readouterr().out.split())
    bagged = bagged_store.find_run("soft_voting of 2")
    assert bagged.params["data.bootstrap"] == "True"
    means = np.mean([_said(run) for run in runs], axis=0)
    np.testing.assert_allclose(_said(bagged), means, atol=1e-6)


def test_seeds_of_bagged_runs_are_one_group_to_compare(bagged_store, capsys):
    trained = [run.run_id for run in bagged_store.runs_of("digits/cnn") if run.tags.get("role") != "ensemble"]
    assert main(["compare", *trained]) == 0
    assert "in what they differ" not in capsys.readouterr().out


def _said(run) -> np.ndarray:
    frame = run.predictions("test").sort_values("id")
    return frame.filter(like="prob_").to_numpy(dtype=np.float64)
