"""F1-optimal thresholds per label."""

from __future__ import annotations

import torch
from torch import Tensor

DEFAULT = 0.5


def choose_thresholds(probabilities: Tensor, targets: Tensor) -> Tensor:
    """For each label the threshold of the highest F1, float64 (K,) on the CPU; 0.5 where F1 says nothing.

    Each label for itself, as macro-averaged F1 adds them up (Lipton et al. 2014, section 3; the "SCut"
    of Yang 2001, who warns that rare labels' thresholds overfit). They are to be judged on other images.

    Args:
        probabilities: (N, K).
        targets: 0 or 1, (N, K).
    """
    columns = zip(probabilities.double().cpu().T, targets.cpu().T > 0.5, strict=True)
    return torch.tensor([best_threshold(scores, positives) for scores, positives in columns]).double()


def best_threshold(scores: Tensor, positives: Tensor) -> float:
    """The t of at least 0 for which `scores > t`, both (N,), has the highest F1.

    All t between two scores do as well: 0.5 is taken where it is one of them, else the middle; of
    several best gaps the one nearest to 0.5. Without positives or negatives it is 0.5.

    >>> best_threshold(torch.tensor([0.1, 0.2, 0.4, 0.3]), torch.tensor([False, True, True, False]))
    0.15...
    """
    if positives.all() or not positives.any():
        return DEFAULT
    ordered, order = scores.double().sort(descending=True)
    hits = positives[order].cumsum(0)
    lower = torch.cat([ordered[1:], ordered.new_zeros(1)])
    gaps = (lower < ordered).nonzero().flatten()  # a threshold fits below these places
    if not len(gaps):
        return DEFAULT
    f1 = 2 * hits[gaps] / (gaps + 1 + positives.sum())
    low, high = lower[gaps], ordered[gaps]
    middle = torch.where((low <= DEFAULT) & (high > DEFAULT), DEFAULT, (low + high) / 2)
    best = f1 == f1.max()
    return float(middle[best][(middle[best] - DEFAULT).abs().argmin()])
