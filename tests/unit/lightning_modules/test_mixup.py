"""Mixing is torchvision's formula, with draws from the given generator alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import CutMix, MixUp

from darkroom.lightning_modules.mixup import box, draw_share, mix


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, side: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, side, side + 2, generator=generator(9))


def swaps(kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images and their labels, before and after a draw that makes them each other's partners."""
    batch, targets = images(2), torch.eye(2)
    for seed in range(100):
        mixed, soft = mix(batch, targets, generator(seed), **{kind: 1.0})
        if 0.05 < soft[0, 1] < 0.5:
            return batch, targets, mixed, soft
    raise AssertionError("no draw swapped the two")


def test_mixup_is_torchvisions() -> None:
    batch, _, mixed, soft = swaps("mixup")
    theirs, labels = MixUp(num_classes=2), torch.arange(2)
    parameters = {"lam": float(soft[0, 0]), "labels": labels, "batch_size": 2}
    torch.testing.assert_close(mixed, theirs.transform(batch, parameters))
    torch.testing.assert_close(soft, theirs.transform(labels, parameters))


def test_the_box_is_torchvisions() -> None:
    height, width = 12, 15
    theirs = CutMix(num_classes=2, alpha=0.5)
    for seed in range(100):
        torch.manual_seed(seed)  # what it will draw, in its order
        share = float(theirs._dist.sample(()))
        column, row = int(torch.randint(width, (1,))), int(torch.randint(height, (1,)))
        torch.manual_seed(seed)
        parameters = theirs.make_params([torch.zeros(2, 3, height, width)])
        left, top, right, bottom = parameters["box"]
        rows, columns, stays = box(height, width, share, (row, column))
        assert (rows, columns) == (slice(top, bottom), slice(left, right))
        assert stays == pytest.approx(parameters["lam_adjusted"])


def test_cutmix_copies_a_box_whose_area_is_the_partners_share_of_the_target() -> None:
    batch, _, mixed, soft = swaps("cutmix")
    cut = (mixed[0] != batch[0]).all(0)  # (H, W)
    assert torch.equal(mixed[0][:, cut], batch[1][:, cut])
    assert torch.equal(mixed[0][:, ~cut], batch[0][:, ~cut])
    rows, columns = cut.any(1), cut.any(0)
    assert int(cut.sum()) == int(rows.sum() * columns.sum())  # a box
    assert float(soft[0, 1]) == pytest.approx(float(cut.float().mean()))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    source = generator()
    shares = [draw_share(alpha, source) for _ in range(2000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_with_both_each_is_chosen_half_of_the_time() -> None:
    batch = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    blended = 0
    for seed in range(400):
        mixed, _ = mix(batch, torch.eye(4), generator(seed), mixup=1.0, cutmix=1.0)
        blended += not torch.equal(mixed, mixed.round())  # cut images keep whole numbers
    assert abs(blended - 200) < 3 * math.sqrt(400 / 4)


def test_soft_targets_keep_their_sum_and_labels_stay_between_0_and_1() -> None:
    labels = (torch.rand(16, 5, generator=generator(1)) < 0.5).float()
    classes = torch.eye(5)[torch.arange(16) % 5]
    for seed in range(20):
        _, soft = mix(images(16), classes, generator(seed), mixup=0.4, cutmix=1.0)
        torch.testing.assert_close(soft.sum(1), torch.ones(16))
        _, soft = mix(images(16), labels, generator(seed), mixup=0.4, cutmix=1.0)
        assert soft.min() >= 0
        assert soft.max() <= 1
        torch.testing.assert_close(soft.sum(0), labels.sum(0))  # partners are a permutation


def test_the_generator_alone_decides_and_the_images_given_stay_as_they_are() -> None:
    batch = images(8)
    before = batch.clone()
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        state = torch.get_rng_state()
        results.append(mix(batch, torch.eye(8), generator(3), mixup=0.2, cutmix=1.0))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(batch, before)


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_without_partners_stays_as_it_is(count: int) -> None:
    batch, targets = images(1), torch.eye(3)[:count]
    mixed, soft = mix(batch, targets, generator(), mixup=1.0)
    assert mixed is batch
    assert soft is targets
