"""What a step needs of a batch."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class TrainingBatch(Protocol):
    """Images with their targets, and the seed of what is random in the step."""

    @property
    def images(self) -> Tensor: ...  # float32 (B, C, H, W)
    @property
    def targets(self) -> Tensor: ...  # int64 (B,); of multi-label tasks float32 (B, K), 0 or 1
    @property
    def indices(self) -> Tensor: ...  # int64 (B,), places in the split
    @property
    def seed(self) -> int: ...  # of this step
    @property
    def global_targets(self) -> Tensor | None: ...  # of all processes' shares, where there are several
