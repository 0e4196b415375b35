"""Runs are grouped by what they are, held to the same images, and never credited with more than they show."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from darkroom.experiments.analysis.compare.command import compare_runs
from darkroom.experiments.analysis.compare.groups import CODE, FINGERPRINT
from darkroom.experiments.errors import RequestError
from darkroom.experiments.evaluation.two_way_test import difference_p_value
from darkroom.experiments.tracking.run_selection import select_runs


def test_runs_that_differ_in_seed_and_places_are_one_group_with_the_mean_of_its_runs(write):
    runs = [
        write("pooled", 0.9, {"seed": seed, "data.seed": seed, "data.root": f"/{seed}", "model.lr": 0.1})
        for seed in range(3)
    ]
    (summary,) = compare_runs(runs, "test", "accuracy").summaries
    values = [run.metrics["test/accuracy"] for run in runs]
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.deviation == pytest.approx(np.std(values, ddof=1))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert summary.over_seeds == pytest.approx((expected.low, expected.high))
    # The mean over seeds varies over images as the mean of their shares of right runs.
    assert summary.over_images is not None
    width = summary.over_images.high - summary.over_images.low
    assert width == pytest.approx(2 * 1.96 * stats.sem(summary.group.right), rel=0.1)


def test_groups_are_ranked_and_show_only_the_keys_in_which_they_differ(write):
    runs = [
        write("ranked", right, {"model.lr": lr, "model.dropout": 0.5, "seed": seed})
        for right, lr in ((0.7, 0.1), (0.95, 0.2))
        for seed in (0, 1)
    ]
    found = compare_runs(runs, "test", "accuracy")
    assert [group.differing for group in found.groups] == [{"model.lr": "0.2"}, {"model.lr": "0.1"}]
    assert [(group.name, group.label) for group in found.groups] == [("A", "lr=0.2"), ("B", "lr=0.1")]
    assert [len(group.members) for group in found.groups] == [2, 2]


OLD = """
name: digits/old
data: {class_path: Digits}
model: {class_path: ImageClassifier, init_args: {lr: 0.1}}
"""


def test_a_key_that_came_after_a_run_has_its_default_there(write):
    def run(seed, **later):
        classes = {"data": "Digits", "model": "ImageClassifier"}
        made = write("digits/old", 0.9, {"model.lr": 0.1, "seed": seed, **classes, **later})
        with made.artifacts() as folder:
            (folder / "config.yaml").write_text(OLD)
        return made

    same = [run(0), run(1, **{"model.sam_rho": None}), run(2, **{"data.bootstrap": False})]
    assert len(compare_runs(same, "test", "accuracy").groups) == 1
    found = compare_runs([*same, run(3, **{"model.sam_rho": 0.05})], "test", "accuracy")
    assert sorted(group.differing["model.sam_rho"] for group in found.groups) == ["0.05", "None"]


def test_groups_made_by_other_code_differ_in_its_commit_and_are_not_named_by_it(write):
    old = {"git_commit": "a" * 40, "git_dirty": "false"}
    dirty = old | {"git_dirty": "true"}
    runs = [
        write("coded", right, {"model.lr": lr, "seed": seed}, tags=tags)
        for right, lr, tags in ((0.9, 0.1, dirty), (0.8, 0.2, old), (0.7, 0.3, {}))
        for seed in (0, 1)
    ]
    for run, diff in zip(runs, ("a line", ""), strict=False):
        with run.artifacts() as folder:
            (folder / "environment").mkdir()
            (folder / "environment" / "uncommitted.diff").write_text(diff)
    found = compare_runs(runs, "test", "accuracy")
    codes = [group.differing[CODE] for group in found.groups]
    assert re.fullmatch("aaaaaaaa \\+ [0-9a-f]{4}, aaaaaaaa \\+ files", codes[0])
    assert codes[1:] == ["aaaaaaaa", "-"]
    assert [group.label for group in found.groups] == ["lr=0.1", "lr=0.2", "lr=0.3"]
    assert not any(group.label_tells_all for group in found.groups)


def test_a_repeated_seed_is_no_further_evidence(write):
    runs = [write("repeated", 0.9, {"seed": seed}) for seed in (0, 1, 1)]
    found = compare_runs(runs, "test", "accuracy")
    assert len(found.groups[0].members) == 2
    assert any("1 run that repeats configuration and seed" in remark for remark in found.remarks)


def test_two_single_runs_are_held_to_mcnemars_exact_test(write):
    generator = np.random.default_rng(0)
    one, other = generator.random(200) < 0.95, generator.random(200) < 0.8
    runs = [write("exact", one, {"model.lr": 1}), write("exact", other, {"model.lr": 2})]
    found = compare_runs(runs, "test", "accuracy")
    table = [[0, np.sum(one & ~other)], [np.sum(~one & other), 0]]
    (pair,) = found.pairs
    assert pair.p_images == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert pair.difference == pytest.approx(one.mean() - other.mean())
    assert pair.verdict.startswith(
        "these two models: A is better on other images of this kind; a single seed"
    )
    assert math.isnan(pair.p)
    assert any("a single seed of A and B" in remark for remark in found.remarks)


def test_the_paired_interval_is_narrower_than_that_of_unpaired_runs_with_the_same_mistakes(write):
    right = np.random.default_rng(0).random(200) < 0.8
    almost = right.copy()
    almost[np.flatnonzero(right)[:6]] = False
    runs = [write("paired", right, {"model.lr": 1}), write("paired", almost, {"model.lr": 2})]
    found = compare_runs(runs, "test", "accuracy")
    (pair,) = found.pairs
    width = pair.over_images.high - pair.over_images.low
    alone = [summary.over_images.high - summary.over_images.low for summary in found.summaries]
    assert width < 0.6 * min(alone)
    assert pair.over_images.holds(6 / 200)


def test_of_several_pairs_each_kind_of_p_value_is_corrected_by_holm(write):
    runs = [
        write("corrected", right, {"model.lr": right, "seed": seed})
        for right in (0.95, 0.9, 0.85)
        for seed in range(3)
    ]
    found = compare_runs(runs, "test", "accuracy")
    values = {group.name: group.values for group in found.groups}
    pairs = [("A", "B"), ("A", "C"), ("B", "C")]
    raw = [stats.ttest_ind(values[a], values[b], equal_var=False).pvalue for a, b in pairs]
    assert [(pair.first.name, pair.second.name) for pair in found.pairs] == pairs
    assert [pair.p_seeds for pair in found.pairs] == pytest.approx(multipletests(raw, method="holm")[1])


def test_equal_runs_are_not_told_apart(write):
    runs = [write("equal", 0.9, {"model.lr": lr, "seed": seed}) for lr in (1, 2) for seed in (0, 1)]
    (pair,) = compare_runs(runs, "test", "accuracy").pairs
    assert pair.p == pair.p_images == 1
    assert pair.needed is None
    assert pair.verdict == "no difference found"


def test_other_test_images_are_not_paired_and_said_to_be_others(write):
    runs = [
        write("others", 0.9, {"model.lr": 1}),
        write("others", 0.8, {"model.lr": 2}, prefix="photo", fingerprint="g"),
    ]
    found = compare_runs(runs, "test", "accuracy")
    (pair,) = found.pairs
    assert pair.over_images is None
    assert math.isnan(pair.p_images)
    assert all(summary.over_images is not None for summary in found.summaries)
    assert any("B judged other test images than A" in remark for remark in found.remarks)
    assert FINGERPRINT in found.groups[0].differing


def test_the_same_ids_with_another_fingerprint_are_paired_and_said_to_be_other_pixels(write):
    runs = [write("pixels", 0.9, {"model.lr": 1}), write("pixels", 0.8, {"model.lr": 2}, fingerprint="g")]
    found = compare_runs(runs, "test", "accuracy")
    assert found.pairs[0].over_images is not None
    assert any("another fingerprint" in remark for remark in found.remarks)


def test_runs_on_changed_data_are_not_pooled_as_seeds(write):
    runs = [write("changed", 0.9, {"seed": 0}), write("changed", 0.9, {"seed": 1}, fingerprint="g")]
    assert len(compare_runs(runs, "test", "accuracy").groups) == 2


def test_where_a_run_has_no_test_part_all_are_compared_on_validation(write):
    runs = [write("untested", 0.9, {"seed": seed}, split="val") for seed in (0, 1)]
    found = compare_runs(runs, "test", "accuracy")
    assert found.metric == "val/accuracy"
    assert any("2 of 2 runs have no test/accuracy" in remark for remark in found.remarks)


def test_folds_judge_images_of_their_own_and_their_interval_is_corrected(write):
    runs = [
        write(
            "folds", 0.9, {"seed": 0, "data.folds": 4, "data.fold": fold}, split="val", prefix=f"fold{fold}"
        )
        for fold in range(4)
    ]
    runs[1] = write("folds", 0.8, {"seed": 0, "data.folds": 4, "data.fold": 1}, split="val", prefix="fold1")
    (summary,) = compare_runs(runs, "val", "accuracy").summaries
    assert len(summary.group.right) == 800
    half = summary.over_seeds.high - summary.mean
    error = summary.deviation * math.sqrt(1 / 4 + 1 / 3)
    assert half == pytest.approx(stats.t.ppf(0.975, 3) * error)


def test_what_is_not_finished_or_has_no_predictions_is_left_out_with_a_word(write, written_store):
    runs = [
        write("left", 0.9, {"seed": 0}),
        write("left", 0.9, {"seed": 1}, status="FAILED"),
        write("left", 0.9, {"seed": 2}, status="KILLED", tags={"pruned": "true"}),
        write("left", 0.9, {"seed": 3}, status="RUNNING"),
    ]
    bare = written_store.start_run("left", "bare", {})
    bare.log_metrics({"test/accuracy": 0.9})
    bare.end("FINISHED")
    remarks = compare_runs([*runs, written_store.run(bare.run_id)], "test", "accuracy").remarks
    for words in ("that failed", "stopped early by their sweep", "have not finished", "no test predictions"):
        assert any(words in remark for remark in remarks), words


def test_nothing_to_compare_is_refused(write):
    failed = write("failed", 0.9, status="FAILED")
    with pytest.raises(RequestError, match=r"none of 1 runs can be compared .*1 run that failed"):
        compare_runs([failed], "test", "accuracy")


def test_an_interval_over_images_has_a_width_without_a_mistake_too(write):
    (summary,) = compare_runs([write("few", 1.0)], "test", "accuracy").summaries
    assert summary.over_images == pytest.approx(proportion_confint(200, 200, method="wilson"))


def test_seeds_that_tie_have_no_interval_and_their_verdict_is_over_images(write):
    better, worse = np.arange(200) >= 4, np.arange(200) >= 12  # no seed says anything else
    runs = [
        write("ties", right, {"model.lr": lr, "seed": seed})
        for right, lr in ((better, 1), (worse, 2))
        for seed in range(3)
    ]
    found = compare_runs(runs, "test", "accuracy")
    assert all(math.isinf(summary.over_seeds.low) for summary in found.summaries)
    (pair,) = found.pairs
    assert pair.p == pytest.approx(difference_p_value(better - worse.astype(float)))
    assert (pair.verdict == "A is better") == (pair.p < 0.05)
    assert any("seeds of A and B have the same value" in remark for remark in found.remarks)


def test_better_on_these_images_alone_is_no_win(write):
    runs = []
    for lr, hard in ((1, range(8)), (2, range(100, 114))):  # each errs on images of its own
        for seed in range(4):
            right = np.ones(200, dtype=bool)
            right[[*hard, 150 + seed]] = False
            right[hard[0]] = seed == 0
            runs.append(write("these", right, {"model.lr": lr, "seed": seed}))
    found = compare_runs(runs, "test", "accuracy")
    (pair,) = found.pairs
    assert pair.p_seeds < 0.05 <= pair.p
    assert pair.verdict.startswith("no difference found: seeds agree, but other images might not; at least ")
    assert not found.different().any()


def test_images_in_groups_are_compared_by_group(write):
    """One patient in ten, whom B gets wrong as a whole, is one mistake and not twenty."""
    patients = [f"patient{number // 20}" for number in range(200)]
    worse = np.arange(200) >= 20
    found = {}
    for kind, groups in (("alone", None), ("by patient", patients)):
        params = {"data.group_column": "patient"} if groups else {}
        runs = [
            write(kind, right, {"model.lr": lr, "seed": seed, **params}, groups=groups)
            for right, lr in ((np.ones(200, dtype=bool), 1), (worse, 2))
            for seed in range(2)
        ]
        found[kind] = compare_runs(runs, "test", "accuracy")
    alone, together = (found[kind].pairs[0] for kind in ("alone", "by patient"))
    assert alone.verdict == "A is better"
    assert together.verdict.startswith("no difference found")
    rows = np.array([0.0] * 9 + [1.0])
    assert together.p == pytest.approx(stats.ttest_1samp(rows, 0).pvalue)
    widths = [found[kind].summaries[1].over_images for kind in ("alone", "by patient")]
    assert widths[1].high - widths[1].low > 2 * (widths[0].high - widths[0].low)
    assert "95 % intervals count 10 groups (patient), not 200 images" in found["by patient"].remarks


def test_of_too_few_groups_there_is_no_test_but_the_reason(write):
    patients = [f"patient{number // 50}" for number in range(200)]
    runs = [write("few", np.arange(200) >= hard, {"model.lr": hard}, groups=patients) for hard in (0, 30)]
    found = compare_runs(runs, "test", "accuracy")
    assert math.isinf(found.summaries[0].over_images.low)
    assert found.pairs[0].verdict == "not tested: too few groups of images, and a single seed"
    assert any(remark.startswith("no interval or test over images: there are 4") for remark in found.remarks)


def test_a_recipe_means_its_runs_without_trials_and_a_sweep_means_its_trials(write, written_store):
    plain = write("meant", 0.9)
    parent = written_store.start_run("meant", "sweep", {"study": "s"})
    trial = write("meant", 0.9, {"model.lr": 1}, tags={"study": "s"}, parent=parent)
    assert [run.run_id for run in select_runs(written_store, ["meant"], None)] == [plain.run_id]
    assert [run.run_id for run in select_runs(written_store, [parent.run_id], None)] == [trial.run_id]
    assert [run.run_id for run in select_runs(written_store, [plain.run_id[:12]], None)] == [plain.run_id]


def test_a_filter_admits_what_mlflow_admits(write, written_store):
    low = write("filtered", 0.5, tags={"kind": "low"})
    high = write("filtered", 0.95, tags={"kind": "high"})
    found = select_runs(written_store, [], "tags.kind = 'high'")
    assert [run.run_id for run in found] == [high.run_id]
    found = select_runs(written_store, ["filtered"], "metrics.`test/accuracy` < 0.7")
    assert [run.run_id for run in found] == [low.run_id]
    with pytest.raises(RequestError, match="no run is there for --where"):
        select_runs(written_store, ["filtered"], "tags.kind = 'none'")
    with pytest.raises(RequestError, match="can't read the filter"):
        select_runs(written_store, [], "nonsense ==== 3")
