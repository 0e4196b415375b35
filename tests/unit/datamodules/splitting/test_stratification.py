"""Iterative stratification against the article's steps told naively, and against drawing at random."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from darkroom.datamodules.splitting.stratification import iterative_stratification


def rare_labels(num_samples: int, seed: int) -> NDArray[np.int64]:
    """Labels from common to rare, some samples without any."""
    rates = np.geomspace(0.5, 10 / num_samples, 8)
    return (np.random.default_rng(seed).random((num_samples, 8)) < rates).astype(np.int64)


def naive(rows: list[list[int]], shares: list[float]) -> list[int]:
    """Sechidis et al. (2011), algorithm 1, line by line; ties go to the first."""
    labels, subsets = range(len(rows[0])), range(len(shares))
    wanted_in_all = [share * len(rows) for share in shares]
    wanted = [[share * sum(row[label] for row in rows) for label in labels] for share in shares]
    answer = [-1] * len(rows)
    while -1 in answer:
        left = {label: [i for i, row in enumerate(rows) if row[label] and answer[i] < 0] for label in labels}
        left = {label: members for label, members in left.items() if members}
        if not left:
            for i in range(len(rows)):
                if answer[i] < 0:
                    answer[i] = max(subsets, key=lambda j: wanted_in_all[j])
                    wanted_in_all[answer[i]] -= 1
            break
        rarest = min(left, key=lambda label: len(left[label]))
        for i in left[rarest]:
            chosen = max(subsets, key=lambda j: (wanted[j][rarest], wanted_in_all[j]))
            answer[i] = chosen
            for label in labels:
                wanted[chosen][label] -= rows[i][label]
            wanted_in_all[chosen] -= 1
    return answer


@pytest.mark.parametrize("shares", [[0.2] * 5, [0.9, 0.1], [0.5, 0.3, 0.2]])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_articles_algorithm(shares: list[float], seed: int) -> None:
    targets = rare_labels(300, seed)
    hashes = np.random.default_rng(seed).random(300)
    order = np.argsort(hashes)
    expected = naive(targets[order].tolist(), shares)
    assert iterative_stratification(targets, shares, hashes)[order].tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_spread_far_more_evenly_than_at_random(seed: int) -> None:
    targets = rare_labels(2000, seed)
    generator = np.random.default_rng(seed)

    def imbalance(fold: NDArray[np.int64]) -> float:
        counts = np.stack([targets[fold == index].sum(0) for index in range(5)])
        return float(np.abs(counts / targets.sum(0) - 0.2).mean())

    stratified = imbalance(iterative_stratification(targets, [0.2] * 5, generator.random(2000)))
    drawn = np.mean([imbalance(generator.integers(0, 5, 2000)) for _ in range(20)])
    assert stratified < drawn / 3
