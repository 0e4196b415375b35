"""Random-resized crops are drawn and resized as torchvision draws and resizes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TF

from datamodules.crops import draw_boxes, random_resized_crops
from datamodules.sizing import resize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(375, 500), (100, 900), (64, 64)])
def test_boxes_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    scale, count = (0.08, 1.0), 3000
    ours = draw_boxes(torch.tensor([shape]).expand(count, 2), scale, generator()).numpy()
    torch.manual_seed(1)
    image = torch.empty(3, *shape)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)]
    )
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= shape).all()
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3


def test_each_image_has_its_own_box_within_its_own_size() -> None:
    sizes = torch.tensor([[20, 400], [400, 20], [1, 1], [300, 300]])
    boxes = draw_boxes(sizes, (0.5, 1.0), generator())
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()
    assert (boxes[:, 2:] >= 1).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_resizing_is_torchvisions(interpolation: str) -> None:
    image = torch.randint(256, (90, 70, 3), generator=generator(), dtype=torch.uint8)
    mode = {"nearest": InterpolationMode.NEAREST_EXACT}.get(interpolation, InterpolationMode(interpolation))
    theirs = TF.resize(image.permute(2, 0, 1), [32, 48], mode, antialias=True)
    ours = resize(image, (32, 48), interpolation).permute(2, 0, 1)
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= (4 if interpolation == "bicubic" else 1)  # weights of 8 bits, not floats
    assert difference.float().mean() < 0.5


def test_a_batch_in_memory_keeps_its_shape_and_its_whole_is_itself() -> None:
    images = torch.randint(256, (5, 1, 28, 20), generator=generator(), dtype=torch.uint8)
    crops = random_resized_crops(images, (0.3, 0.9), generator(1))
    assert (crops.shape, crops.dtype) == (images.shape, torch.uint8)
    assert not torch.equal(crops, images)
