"""Wrong labels are found, the right ones left alone, in the words of the data's classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from darkroom.datamodules import Digits
from darkroom.experiments.analysis.dataset.label_issues import (
    doubtful,
    find_label_issues,
    validation_probabilities,
)
from darkroom.experiments.errors import RequestError

pytestmark = pytest.mark.extra("cleanlab")
NUM_FLIPPED = 90  # of 1,797


@pytest.fixture(scope="module")
def flipped():
    """The digits with five of a hundred labels wrong, and out-of-fold probabilities learned from them."""
    rng = np.random.default_rng(0)
    bunch = load_digits()
    wrong = rng.choice(len(bunch.target), NUM_FLIPPED, replace=False)
    targets = bunch.target.copy()
    targets[wrong] = (targets[wrong] + rng.integers(1, 10, NUM_FLIPPED)) % 10
    learner = LogisticRegression(max_iter=300)
    probabilities = cross_val_predict(learner, bunch.data / 16, targets, method="predict_proba", cv=4)
    return targets, set(wrong.tolist()), probabilities


def test_most_flipped_labels_are_found_and_most_that_is_found_was_flipped(flipped):
    targets, wrong, probabilities = flipped
    found = doubtful(targets, probabilities).tolist()
    assert len(wrong & set(found)) >= 0.8 * NUM_FLIPPED
    assert len(wrong & set(found)) >= 0.7 * len(found)
    assert wrong.issuperset(found[:20])


def test_among_several_labels_of_an_image_most_wrong_ones_are_found():
    rng = np.random.default_rng(1)
    truth = rng.random((400, 3)) < 0.4
    probabilities = np.where(truth, rng.uniform(0.8, 0.99, truth.shape), rng.uniform(0.01, 0.2, truth.shape))
    given = truth.copy()
    wrong = rng.choice(400, 15, replace=False)
    given[wrong, 1] ^= True
    found = doubtful(given.astype(np.float32), probabilities).tolist()
    assert set(found) <= set(wrong.tolist())
    assert len(found) >= 12


def test_labels_that_all_images_have_or_none_are_not_doubted():
    given = np.tile([1.0, 0.0, 0.0], (200, 1))
    given[::2, 1] = 1
    probabilities = np.abs(given - 0.05)
    probabilities[4] = 1 - probabilities[4]
    assert doubtful(given, probabilities).tolist() == [4]
    assert len(doubtful(given[1::2], probabilities[1::2])) == 0


def test_an_issue_names_image_given_and_suggested_class():
    data = Digits()
    data.setup()
    store = data.splits["val"]
    probabilities = np.full((len(store), 10), 0.01)
    probabilities[np.arange(len(store)), store.targets] = 0.91
    given = int(store.targets[4])
    other = (given + 3) % 10
    probabilities[4] = 0.01
    probabilities[4, other] = 0.91
    frame = pd.DataFrame(probabilities, index=store.ids)
    (issue,) = find_label_issues(data, frame.sample(frac=1, random_state=0))
    assert issue.sample.id == store.ids[4]
    assert (issue.sample.split, issue.sample.label, issue.suggested) == ("val", str(given), str(other))
    assert (issue.confidence, issue.given_confidence) == (0.91, 0.01)


def test_probabilities_of_several_folds_are_joined_and_averaged_where_they_overlap():
    class Run:
        run_id = "0123456789"

        def __init__(self, frame: pd.DataFrame) -> None:
            self.predictions = lambda split: {"val": frame}[split]
            self.read_text = lambda path: {"data/facts.json": '{"class_names": ["ant", "bee"]}'}[path]

    first = pd.DataFrame({"id": ["a", "b"], "target": [0, 1], "prob_0": [0.9, 0.2], "prob_1": [0.1, 0.8]})
    second = pd.DataFrame({"id": ["b", "c"], "target": [1, 1], "prob_0": [0.4, 0.3], "prob_1": [0.6, 0.7]})
    joined = validation_probabilities([Run(first), Run(second)], ["ant", "bee"])
    assert joined.index.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(joined.to_numpy(), [[0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    with pytest.raises(RequestError, match="knows the classes ant, bee; this data has bee, zebra"):
        validation_probabilities([Run(first)], ["bee", "zebra"])
