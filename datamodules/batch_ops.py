"""Chunked batch operations and fast indexing on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# 2 MiB of float32: a core's second cache, or nearly. Large images took 1.4 to 6 times as long all at once.
PIECE = 2**19


def images_at_once(images: Tensor) -> int:
    """How many of (B, C, H, W) to change together: all of them on other devices, at least one.

    >>> images_at_once(torch.zeros(128, 3, 32, 32)), images_at_once(torch.zeros(64, 3, 224, 224))
    (128, 3)
    """
    count = len(images)
    if images.device.type != "cpu" or count == 0:
        return max(count, 1)
    return max(min(count, PIECE * count // images.numel()), 1)


def in_pieces(change: Callable[..., Tensor], images: Tensor, *amounts: Tensor) -> Tensor:
    """`change(images, *amounts)`, where no image depends on another."""
    size = images_at_once(images)
    if size >= len(images):
        return change(images, *amounts)
    first = change(images[:size], *(amount[:size] for amount in amounts))
    # Of whatever type, size and order in memory the change gives.
    changed = torch.empty_like(first[:1].expand(len(images), *first.shape[1:]), memory_format=_layout(first))
    changed[:size] = first
    for start in range(size, len(images), size):
        piece = slice(start, start + size)
        changed[piece] = change(images[piece], *(amount[piece] for amount in amounts))
    return changed


def _layout(images: Tensor) -> torch.memory_format:
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def take(images: Tensor, places: Tensor) -> Tensor:
    """`images[places]`, in the same order in memory, in a tenth of the time: torch picks value by value.

    Args:
        images: (N, C, H, W), or (N, F) in their place; may be a view, and its images may overlap.
        places: int64 (B,).
    """
    if images.ndim == 4 and images.stride(1) < images.stride(3):  # channels last
        return images.permute(0, 2, 3, 1).index_select(0, places).permute(0, 3, 1, 2)
    return images.index_select(0, places)
