"""Images are picked out of many as indexing picks them, in the same order in memory."""

from __future__ import annotations

import pytest
import torch

from darkroom.datamodules.batch_ops import take

PLACES = torch.tensor([3, 0, 3, 4])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_what_is_taken_is_what_indexing_gives(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    images = torch.arange(5 * 3 * 4 * 6).view(5, 3, 4, 6).to(dtype).contiguous(memory_format=memory_format)
    taken = take(images, PLACES)
    assert torch.equal(taken, images[PLACES])
    assert taken.stride() == images[PLACES].stride()


def test_rows_of_features_and_images_without_pixels_are_taken_too() -> None:
    features = torch.arange(10.0).view(5, 2)
    assert torch.equal(take(features, PLACES), features[PLACES])
    assert take(torch.empty(5, 0), PLACES).shape == (4, 0)


def test_images_may_overlap() -> None:
    windows = torch.arange(8).as_strided((5, 1, 2, 2), (1, 4, 2, 1))
    assert take(windows, PLACES)[:, 0].tolist() == [
        [[start, start + 1], [start + 2, start + 3]] for start in PLACES.tolist()
    ]
