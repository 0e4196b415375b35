"""Generated shapes are the same everywhere, and their labels say what is to be seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darkroom.datamodules import Synthetic


def prepared(**arguments) -> Synthetic:
    data = Synthetic(**arguments)
    data.setup()
    return data


@pytest.mark.parametrize("multilabel", [False, True])
def test_what_is_known_beforehand_is_what_comes(multilabel: bool) -> None:
    data = Synthetic(num_images=80, multilabel=multilabel)
    listed, loaded = data.listed(), data.load()
    for part in ("train", "test"):
        assert torch.equal(listed[part].targets, loaded[part].targets)
        assert listed[part].ids == loaded[part].ids
        assert loaded[part].images.shape == (len(loaded[part]), 3, 32, 32)


def test_two_processes_draw_the_same_images() -> None:
    assert prepared(num_images=80).source_fingerprints == prepared(num_images=80).source_fingerprints
    assert prepared(num_images=80).source_fingerprints != prepared(num_images=84).source_fingerprints


def test_an_image_without_a_label_is_noise_and_labels_add_light() -> None:
    store = prepared(num_images=400, multilabel=True, noise=0.02).splits["train"]
    bright = (store.images.float() > 0.5 * 255).flatten(1).float().mean(1)
    shapes = store.targets.sum(1)
    assert bright[shapes == 0].max() < 0.01
    assert bright[shapes > 0].min() > 0.01


@pytest.mark.parametrize(
    ("multilabel", "classes", "task"),
    [(False, 2, "binary"), (False, 4, "multiclass"), (True, 2, "multilabel")],
)
def test_the_task_follows(multilabel: bool, classes: int, task: str) -> None:
    data = prepared(num_images=100, num_classes=classes, multilabel=multilabel)
    assert data.task == task
    counts = np.array(data.class_counts("train")) / len(data.splits["train"])
    np.testing.assert_allclose(counts, 0.4 if multilabel else 1 / classes, atol=0.15)
