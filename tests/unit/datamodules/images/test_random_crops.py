"""Random-resized crops are torchvision's: the same boxes in distribution, the same pixels for a box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2.functional import resized_crop

from darkroom.datamodules.images.random_crops import draw_boxes, random_resized_crops
from darkroom.datamodules.images.resizing import resize

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("size", [(375, 500), (500, 100), (60, 400), (3, 3)])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    ours = draw_boxes(torch.tensor([size] * 3000), SCALE, RATIO, generator=generator()).numpy()
    torch.manual_seed(1)
    image = torch.empty(1, *size)
    theirs = np.array([RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(3000)])
    for column in range(4):  # top, left, height, width
        assert ks_2samp(ours[:, column], theirs[:, column]).statistic < 0.05


def test_boxes_lie_within_images_of_all_shapes() -> None:
    sizes = torch.randint(1, 600, (5000, 2), generator=generator())
    top, left, height, width = draw_boxes(sizes, SCALE, RATIO, generator=generator()).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top + height <= sizes[:, 0]).all()
    assert (left + width <= sizes[:, 1]).all()


def test_where_nothing_fits_the_box_is_the_central_one() -> None:
    sizes = torch.tensor([[50, 1000], [1000, 50]])
    boxes = draw_boxes(sizes, (1.0, 1.0), RATIO, generator=generator())
    image = [torch.empty(1, *size) for size in sizes.tolist()]
    expected = [RandomResizedCrop.get_params(one, [1.0, 1.0], list(RATIO)) for one in image]
    assert boxes.tolist() == [list(box) for box in expected]


def test_the_generator_alone_decides() -> None:
    sizes = torch.tensor([[375, 500]] * 20)
    first = draw_boxes(sizes, SCALE, generator=generator())
    torch.manual_seed(99)
    assert torch.equal(first, draw_boxes(sizes, SCALE, generator=generator()))
    assert len(first.unique(dim=0)) == 20


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_box_is_resized_as_torchvision_does(channels: int, interpolation: str) -> None:
    image = torch.randint(256, (1, 200, 300, channels), generator=generator(), dtype=torch.uint8)
    image = image.permute(0, 3, 1, 2)
    boxes = draw_boxes(torch.tensor([[200, 300]] * 10), SCALE, generator=generator())
    for top, left, height, width in boxes.tolist():
        window = image[:, :, top : top + height, left : left + width]
        ours = resize(window, 96, 96, interpolation)  # type: ignore[arg-type]
        assert ours.shape == (1, channels, 96, 96)
        theirs = resized_crop(
            image.contiguous(), top, left, height, width, [96, 96],
            interpolation=InterpolationMode(interpolation), antialias=True,
        )  # fmt: skip
        assert (ours.int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize("wrong", [{"scale": (0.0, 1.0)}, {"scale": (0.5, 2.0)}, {"ratio": (2.0, 1.0)}])
def test_ranges_without_sense_are_refused(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        draw_boxes(torch.tensor([[9, 9]]), **{"scale": SCALE, **wrong}, generator=generator())


def test_a_batch_in_memory_is_cropped_image_by_image_and_keeps_its_shape() -> None:
    images = torch.randint(256, (6, 1, 28, 20), generator=generator(), dtype=torch.uint8)
    crops = random_resized_crops(images, (0.3, 0.9), generator())
    boxes = draw_boxes(torch.tensor([[28, 20]] * 6), (0.3, 0.9), generator=generator()).tolist()
    assert crops.shape == images.shape
    for image, crop, (top, left, height, width) in zip(images, crops, boxes, strict=True):
        expected = resized_crop(image, top, left, height, width, [28, 20], antialias=True)
        assert (crop.int() - expected.int()).abs().max() <= 1
