"""The store keeps images as they are, and its fingerprint changes with any of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from darkroom.datamodules.images.store import ImageStore


def random_store(count: int = 30, shape: tuple[int, int, int] = (3, 5, 4)) -> ImageStore:
    generator = torch.Generator().manual_seed(0)
    return ImageStore(
        images=torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8),
        targets=torch.randint(4, (count,), generator=generator),
        ids=[f"image{index}" for index in range(count)],
    )


def test_a_subset_keeps_images_targets_and_ids_together() -> None:
    store = random_store()
    mask = torch.arange(30) % 7 == 2
    subset = store.subset(mask)
    assert subset.ids == ["image2", "image9", "image16", "image23"]
    np.testing.assert_array_equal(subset.images.numpy(), store.images.numpy()[[2, 9, 16, 23]])
    np.testing.assert_array_equal(subset.targets.numpy(), store.targets.numpy()[[2, 9, 16, 23]])
    assert len(subset) == 4


def test_the_whole_is_no_copy() -> None:
    store = random_store()
    assert store.subset(torch.ones(30, dtype=torch.bool)).images.data_ptr() == store.images.data_ptr()


@pytest.mark.parametrize("count", [30, 5000])  # 5000: more than one chunk, the last one smaller
def test_pixel_statistics_are_numpys(count: int) -> None:
    store = random_store(count)
    pixels = store.images.numpy().astype(np.float64) / 255
    mean, std = store.pixel_statistics()
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-6)


def test_constant_images_have_a_deviation_to_divide_by() -> None:
    store = replace(random_store(), images=torch.full((30, 3, 5, 4), 7, dtype=torch.uint8))
    _, std = store.pixel_statistics()
    assert all(0 < value < 1e-3 for value in std)


def test_pixel_statistics_leave_the_images_alone() -> None:
    store = random_store()
    before = store.images.clone()
    store.pixel_statistics()
    assert torch.equal(store.images, before)


def test_equal_data_has_an_equal_fingerprint() -> None:
    assert random_store().fingerprint() == random_store().fingerprint()
    strided = random_store().images.transpose(0, 1).contiguous().transpose(0, 1)
    assert replace(random_store(), images=strided).fingerprint() == random_store().fingerprint()


def test_one_pixel_one_label_one_id_or_the_shape_changes_the_fingerprint() -> None:
    store = random_store()
    pixel = store.images.clone()
    pixel[29, 2, 4, 3] ^= 1
    label = store.targets.clone()
    label[17] = (label[17] + 1) % 4
    changed = [
        store,
        replace(store, images=pixel),
        replace(store, targets=label),
        replace(store, ids=[*store.ids[:-1], "another"]),
        replace(store, images=store.images.view(30, 3, 4, 5)),
        store.subset(torch.arange(30) < 29),
    ]
    assert len({each.fingerprint() for each in changed}) == len(changed)
