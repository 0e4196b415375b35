"""torchvision's own classes read what lies on disk; labels, parts and pixels are theirs."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from datamodules import TorchvisionDataset
from datamodules.torchvision import SETS


def prepared(name: str, root: Path, **arguments: Any) -> TorchvisionDataset:
    data = TorchvisionDataset(
        name, str(root), **{"download": False, "cache": str(root / "cache"), **arguments}
    )
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def kmnist(tmp_path) -> Path:
    """Two idx pairs of noise where torchvision looks for KMNIST."""
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 200), ("t10k", 50)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for array, kind in ((pixels, "images-idx3"), (labels, "labels-idx1")):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


@pytest.fixture
def food(tmp_path, write_image) -> Path:
    """Food101's layout with four classes of five training and three test pictures."""
    folder = tmp_path / "food-101"
    listed: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name in ("baklava", "gyoza", "paella", "waffles"):
        numbers = [f"{name}/{number}" for number in range(8)]
        listed["train"][name], listed["test"][name] = numbers[:5], numbers[5:]
        for number in numbers:
            write_image(folder / "images" / f"{number}.jpg", size=(40, 30))
    (folder / "meta").mkdir()
    for part, names in listed.items():
        (folder / "meta" / f"{part}.json").write_text(json.dumps(names))
    return tmp_path


def test_a_set_kept_as_one_array_is_that_array(kmnist) -> None:
    data = prepared("KMNIST", kmnist, val_fraction=0.0)
    for part, train in (("train", True), ("test", False)):
        theirs = torchvision.datasets.KMNIST(str(kmnist), train=train)
        store = data.splits[part]
        assert torch.equal(store.images[:, 0], theirs.data)
        assert torch.equal(store.targets, theirs.targets)
    assert data.image_shape == (1, 28, 28)


def test_a_set_kept_in_files_is_read_through_the_cache_with_its_official_parts(food) -> None:
    data = prepared("Food101", food, image_size=16, val_fraction=0.2)
    assert data.class_names == ("baklava", "gyoza", "paella", "waffles")
    assert len(data.splits["test"]) == 12
    assert len(data.splits["train"]) + len(data.splits["val"]) == 20
    theirs = torchvision.datasets.Food101(str(food), split="test")
    assert data.splits["test"].targets.tolist() == [theirs[place][1] for place in range(12)]
    assert data.splits["test"].images[torch.arange(2)].shape == (2, 3, 16, 16)


def test_a_set_that_is_not_there_is_named_with_what_to_do(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Food101 is not in .*data.download=true"):
        prepared("Food101", tmp_path)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no set is named 'CIFAR11'; known are CIFAR10, "):
        TorchvisionDataset("CIFAR11")


@pytest.mark.parametrize("name", SETS)
def test_every_set_takes_the_arguments_of_its_parts(name: str) -> None:
    accepted = inspect.signature(getattr(torchvision.datasets, name)).parameters
    for arguments in SETS[name].parts.values():
        assert arguments.keys() <= accepted.keys()


def test_what_is_known_without_files_needs_none() -> None:
    data = TorchvisionDataset("CIFAR10")
    assert (data.class_names[3], data.image_shape) == ("cat", (3, 32, 32))
    assert TorchvisionDataset("CIFAR10", image_size=224).image_shape == (3, 224, 224)
