"""A bootstrap sample is Poisson counts of the training images, and nothing that is judged."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from darkroom.datamodules import Digits
from darkroom.datamodules.splitting.bootstrap import POISSON, bootstrap_counts


def digits(**arguments) -> Digits:
    data = Digits(**arguments)
    data.setup()
    return data


def test_counts_are_poissons_of_mean_one():
    np.testing.assert_allclose(POISSON, stats.poisson(1).cdf(np.arange(len(POISSON))), rtol=1e-12)
    ids = [f"image{number}" for number in range(20_000)]
    counts = bootstrap_counts(ids, np.zeros(20_000, np.int64), seed=3)
    seen = np.bincount(counts.clip(max=5), minlength=6)
    expected = 20_000 * np.append(stats.poisson(1).pmf(range(5)), stats.poisson(1).sf(4))
    assert stats.chisquare(seen, expected).pvalue > 0.001


def test_samples_of_two_seeds_are_independent():
    ids = [f"image{number}" for number in range(5000)]
    one, other = (bootstrap_counts(ids, np.zeros(5000, np.int64), seed) for seed in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_the_sample_depends_on_ids_alone_and_every_class_is_learned():
    ids = np.array([f"image{number}" for number in range(300)])
    targets = np.r_[np.arange(100), np.zeros(200, np.int64)]  # 99 classes of one image each
    counts = bootstrap_counts(ids.tolist(), targets, seed=0)
    assert (counts[1:100] > 0).all()
    assert (counts[100:] == 0).any()
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(bootstrap_counts(ids[order].tolist(), targets[order], 0), counts[order])
    labels = np.eye(100, dtype=np.int64)[targets]  # the same, as labels
    np.testing.assert_array_equal(bootstrap_counts(ids.tolist(), labels, 0), counts)


def test_it_is_drawn_of_the_training_images_alone_by_the_seed_of_the_experiment():
    whole, one, again, other = (
        digits(),
        digits(bootstrap=True),
        digits(bootstrap=True),
        digits(bootstrap=True, seed=1),
    )
    for data in (one, other):
        assert data.splits["val"].ids == whole.splits["val"].ids
        assert data.splits["test"].ids == whole.splits["test"].ids
        assert data.source_fingerprints == whole.source_fingerprints
        assert set(data.splits["train"].ids) < set(whole.splits["train"].ids)
    fingerprints = [data.facts()["split_fingerprint"] for data in (whole, one, again, other)]
    assert fingerprints[1] == fingerprints[2]
    assert len(set(fingerprints)) == 3
    assert not torch.equal(one.preprocess.mean, whole.preprocess.mean)  # measured on what it trains on


def test_an_image_that_is_drawn_twice_is_seen_twice_an_epoch():
    data = digits(bootstrap=True, batch_size=50)
    train = data.splits["train"]
    assert len(train) == data.num_train_images == sum(data.class_counts())
    seen = Counter(train.ids[place] for batch in data.train_dataloader() for place in batch.indices.tolist())
    whole = digits().splits["train"]
    counts = bootstrap_counts(whole.ids, whole.targets.numpy(), seed=0)
    assert seen == Counter({name: int(n) for name, n in zip(whole.ids, counts, strict=True) if n})
    assert max(seen.values()) >= 3
    places = {name: place for place, name in enumerate(whole.ids)}
    for place in (0, 700, len(train) - 1):
        original = places[train.ids[place]]
        assert torch.equal(train.images[torch.tensor([place])], whole.images[torch.tensor([original])])
        assert train.targets[place] == whole.targets[original]


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_it_is_drawn_of_a_subset_where_one_is_asked_for(fraction):
    subset, drawn = digits(train_fraction=fraction), digits(train_fraction=fraction, bootstrap=True)
    assert set(drawn.splits["train"].ids) < set(subset.splits["train"].ids)
    assert abs(len(drawn.splits["train"]) / len(subset.splits["train"]) - 1) < 0.2


def test_what_is_known_without_pixels_is_as_many_images():
    data = Digits(bootstrap=True)
    before = data.num_train_images
    data.setup()
    assert before == len(data.splits["train"])
