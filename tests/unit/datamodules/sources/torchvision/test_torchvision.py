"""torchvision's own classes read what lies on disk; labels, parts and pixels are theirs."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from darkroom.datamodules import TorchvisionDataset
from darkroom.datamodules.sources.torchvision.catalog import REFUSED, SETS, parts_of
from darkroom.datamodules.sources.torchvision.datamodule import DatasetOriginals


def prepared(name: str, root: Path, **arguments: Any) -> TorchvisionDataset:
    data = TorchvisionDataset(
        name, str(root), **{"download": False, "cache": str(root / "cache"), **arguments}
    )
    data.prepare_data()
    data.setup()
    return data


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[0]).integers(0, 256, shape, dtype=np.uint8)


list_folder = os.listdir


def sorted_names(folder: str | Path, reverse: bool) -> list[str]:
    return sorted(list_folder(folder), reverse=reverse)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Of bytes, or of big-endian integers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8 if array.dtype == np.uint8 else 12, array.ndim])
    path.write_bytes(header + np.array(array.shape, ">u4").tobytes() + array.tobytes())


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """Files of the right name pass for the originals, whose checksums ours can't have."""
    for module in ("celeba", "fer2013", "omniglot", "places365", "semeion"):
        there = lambda path, md5=None: Path(path).is_file()  # noqa: E731
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", there)


@pytest.fixture
def kmnist(tmp_path) -> Path:
    """Two idx pairs of noise where torchvision looks for KMNIST."""
    for prefix, count in (("train", 200), ("t10k", 50)):
        stem = tmp_path / "KMNIST" / "raw" / prefix
        write_idx(Path(f"{stem}-images-idx3-ubyte"), noise(count, 28, 28))
        write_idx(Path(f"{stem}-labels-idx1-ubyte"), (np.arange(count) % 10).astype(np.uint8))
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


def test_a_near_name_is_proposed() -> None:
    with pytest.raises(ValueError, match=r"did you mean STL10\?"):
        TorchvisionDataset("stl-10")


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_a_set_that_has_a_source_of_its_own_is_refused_with_it(name: str) -> None:
    with pytest.raises(ValueError, match=f"source of its own for it: data.class_path={name}$"):
        TorchvisionDataset(name)


def test_a_set_that_no_classifier_can_be_tested_on_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="share no person"):
        TorchvisionDataset("LFWPeople")


@pytest.mark.parametrize("name", SETS)
def test_every_set_takes_the_arguments_of_its_parts(name: str) -> None:
    accepted = inspect.signature(getattr(torchvision.datasets, name)).parameters
    accepts_more = any(each.kind is each.VAR_KEYWORD for each in accepted.values())
    for variant in SETS[name].variants or [None]:
        for arguments in parts_of(name, variant).values():
            assert accepts_more or arguments.keys() <= accepted.keys()


def test_what_is_refused_is_torchvisions() -> None:
    assert all(hasattr(torchvision.datasets, name) for name in REFUSED)
    assert not REFUSED.keys() & SETS.keys()


def test_what_is_known_without_files_needs_none() -> None:
    data = TorchvisionDataset("CIFAR10")
    assert (data.class_names[3], data.image_shape) == ("cat", (3, 32, 32))
    assert TorchvisionDataset("CIFAR10", image_size=224).image_shape == (3, 224, 224)


def test_counts_are_classes_named_by_their_number_and_the_same_in_both_parts(tmp_path, write_image) -> None:
    counts = {"train": [3, 4, 5, 10] * 5, "val": [10, 5, 4, 4]}
    for part, each in counts.items():
        folder = tmp_path / "clevr" / "CLEVR_v1.0"
        names = [
            write_image(folder / "images" / part / f"{place:02d}.png").name for place in range(len(each))
        ]
        scenes = [
            {"image_filename": name, "objects": [{}] * count} for name, count in zip(names, each, strict=True)
        ]
        (folder / "scenes").mkdir(exist_ok=True)
        (folder / "scenes" / f"CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": scenes}))
    data = prepared("CLEVRClassification", tmp_path, image_size=16)
    assert data.class_names == ("3", "4", "5", "10")
    for part, each in counts.items():
        assert [int(data.class_names[target]) for target in data.splits[part].targets] == each


def test_emnist_comes_in_its_variants_of_which_letters_start_at_one(tmp_path) -> None:
    labels = (1 + np.arange(104) % 26).astype(np.uint8)
    for part in ("train", "test"):
        stem = tmp_path / "EMNIST" / "raw" / f"emnist-letters-{part}"
        write_idx(Path(f"{stem}-images-idx3-ubyte"), noise(104, 28, 28))
        write_idx(Path(f"{stem}-labels-idx1-ubyte"), labels)
    data = prepared("EMNIST", tmp_path, variant="letters", val_fraction=0.0)
    assert "".join(data.class_names) == "abcdefghijklmnopqrstuvwxyz"
    assert data.splits["test"].targets.tolist() == (labels - 1).tolist()
    assert torch.equal(data.splits["train"].images[:, 0], torch.from_numpy(noise(104, 28, 28)))
    assert any("transposed" in note for note in data.notes)


def test_a_variant_that_a_set_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"EMNIST comes as balanced, .*mnist, got 'upper'"):
        TorchvisionDataset("EMNIST", variant="upper")
    with pytest.raises(ValueError, match="CIFAR10 comes in one variant, got '2'"):
        TorchvisionDataset("CIFAR10", variant="2")


def test_of_qmnists_eight_numbers_the_first_is_the_class(tmp_path) -> None:
    for part in ("train", "test"):
        stem = tmp_path / "QMNIST" / "raw" / f"qmnist-{part}"
        table = np.random.default_rng(0).integers(0, 1000, (40, 8)).astype(">i4")
        table[:, 0] = np.arange(40) % 10
        write_idx(Path(f"{stem}-images-idx3-ubyte"), noise(40, 28, 28))
        write_idx(Path(f"{stem}-labels-idx2-int"), table)
    data = prepared("QMNIST", tmp_path, val_fraction=0.0)
    assert data.splits["train"].targets.tolist() == [place % 10 for place in range(40)]


def test_semeion_is_one_part_and_is_not_downloaded_unasked(tmp_path, unchecked) -> None:
    with pytest.raises(FileNotFoundError, match=r"data.download=true"):
        prepared("SEMEION", tmp_path)
    digits = np.arange(60) % 10
    pixels = noise(60, 256) > 127
    rows = np.concatenate([pixels, digits[:, None] == np.arange(10)], axis=1)
    np.savetxt(tmp_path / "semeion.data", rows, fmt="%d")
    data = prepared("SEMEION", tmp_path, val_fraction=0.0)
    assert data.splits["train"].targets.tolist() == digits.tolist()
    assert data.splits["train"].images.flatten(1).tolist() == (pixels * 255).tolist()


FACES = noise(70, 48, 48)


def fer_rows(usages: list[str], *, labelled: bool = True) -> str:
    header = "emotion,pixels,Usage" if labelled else "pixels"
    rows = [header]
    for place, usage in enumerate(usages):
        pixels = " ".join(map(str, FACES[place].flatten().tolist()))
        rows.append(f"{place % 7},{pixels},{usage}" if labelled else pixels)
    return "\n".join(rows)


def test_fer2013_is_read_from_its_table(tmp_path, unchecked) -> None:
    (tmp_path / "fer2013").mkdir()
    usages = ["Training"] * 42 + ["PublicTest"] * 14 + ["PrivateTest"] * 14
    (tmp_path / "fer2013" / "fer2013.csv").write_text(fer_rows(usages))
    data = prepared("FER2013", tmp_path, val_fraction=0.0)
    assert data.image_shape == (1, 48, 48)
    assert data.class_names[3] == "happy"
    assert data.splits["test"].targets.tolist() == [place % 7 for place in range(42, 70)]
    assert torch.equal(data.splits["train"].images[:, 0], torch.from_numpy(FACES[:42]))


def test_a_part_whose_labels_are_not_published_is_left_out_with_a_note(tmp_path, unchecked) -> None:
    (tmp_path / "fer2013").mkdir()
    (tmp_path / "fer2013" / "train.csv").write_text(fer_rows(["Training"] * 42))
    (tmp_path / "fer2013" / "test.csv").write_text(fer_rows([""] * 14, labelled=False))
    data = prepared("FER2013", tmp_path, val_fraction=0.0)
    assert "test" not in data.splits
    assert "the labels of FER2013's test part are not published: it is left out" in data.notes


def test_what_torchvision_does_not_download_is_said_to_be_so(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train.csv not found .*has no download of it"):
        prepared("FER2013", tmp_path, download=True)
    with pytest.raises(FileNotFoundError, match="cannot be downloaded anymore"):
        prepared("StanfordCars", tmp_path, download=True)


def test_imagenets_classes_have_the_first_of_their_names(tmp_path, write_image) -> None:
    birds = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane",)}
    torch.save((birds, []), tmp_path / "meta.bin")
    for part in ("train", "val"):
        for wnid in birds:
            for number in range(4):
                write_image(tmp_path / part / wnid / f"{number}.JPEG")
    data = prepared("ImageNet", tmp_path, image_size=16)
    assert data.class_names == ("tench", "crane (n02012849)", "crane (n03126707)")
    assert data.splits["val"].targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_class_has_one_index_though_a_part_is_without_others(tmp_path, write_image) -> None:
    for part, wnids in {"train": ["n01440764", "n02979186", "n03888257"], "val": ["n03888257"]}.items():
        for wnid in wnids:
            for number in range(4):
                write_image(tmp_path / "imagenette2-160" / part / wnid / f"{number}.jpeg")
    data = prepared("Imagenette", tmp_path, variant="160px", image_size=16)
    assert data.class_names == ("tench", "cassette player", "parachute")
    assert data.splits["val"].targets.tolist() == [2] * 4


def test_places365_is_read_by_its_lists(tmp_path, write_image, unchecked) -> None:
    names = ["/a/airfield", "/b/bakery/shop"]
    lines = [f"{name} {label}" for label, name in enumerate(names)]
    (tmp_path / "categories_places365.txt").write_text("\n".join(lines))
    train = [f"{name}/{number}.jpg {label}" for label, name in enumerate(names) for number in range(5)]
    (tmp_path / "places365_train_standard.txt").write_text("\n".join(train))
    (tmp_path / "places365_val.txt").write_text("one.jpg 1\nnone.jpg 0")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*data_256_standard"):
        prepared("Places365", tmp_path, variant="standard_256")
    for line in train:
        write_image(tmp_path / "data_256_standard" / line.split()[0].lstrip("/"))
    for name in ("one.jpg", "none.jpg"):
        write_image(tmp_path / "val_256" / name)
    data = prepared("Places365", tmp_path, variant="standard_256", image_size=16)
    assert data.class_names == ("/a/airfield", "/b/bakery/shop")
    assert data.splits["val"].targets.tolist() == [1, 0]
    assert len(data.splits["train"]) == 10


def test_inaturalist_and_omniglot_are_in_an_order_that_no_file_system_sets(
    tmp_path, write_image, unchecked, monkeypatch
) -> None:
    pieces = "Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus"
    species = [f"0000{place}_{pieces}_{name}" for place, name in enumerate(("rubellus", "terrestris"))]
    for version in ("2021_train_mini", "2021_valid"):
        for name in species:
            for number in range(4):
                write_image(tmp_path / version / name / f"{number}.jpg")
    for character in ("Greek/character01", "Greek/character02", "Arabic/character01"):
        for number in range(4):
            write_image(tmp_path / "omniglot-py" / "images_background" / character / f"{number}.png")
    (tmp_path / "omniglot-py" / "images_background.zip").touch()
    listed = {}
    for turned in (False, True):
        monkeypatch.setattr("os.listdir", partial(sorted_names, reverse=turned))
        worms = TorchvisionDataset("INaturalist", str(tmp_path), False, variant="2021_mini").listing
        letters = TorchvisionDataset("Omniglot", str(tmp_path), False).listing
        listed[turned] = pickle.dumps((worms, letters))
        assert worms.class_names == species
        assert letters.class_names == ["Arabic/character01", "Greek/character01", "Greek/character02"]
        assert worms.parts == ["train"] * 8 + ["val"] * 8
        for listing in (worms, letters):
            folders = [str(path.parent) for path in listing.paths]
            named = [listing.class_names[target] for target in listing.targets]
            assert all(folder.endswith(name) for folder, name in zip(folders, named, strict=True))
    assert listed[False] == listed[True]


def test_signs_in_a_format_of_torchvisions_own_are_read_through_it(tmp_path, write_image) -> None:
    folder = tmp_path / "gtsrb" / "GTSRB"
    for label in range(3):
        for number in range(4):
            write_image(folder / "Training" / f"{label:05d}" / f"{number}.ppm")
    write_image(folder / "Final_Test" / "Images" / "a.ppm")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\na.ppm;2\n")
    data = prepared("GTSRB", tmp_path, image_size=16, val_fraction=0.0)
    assert data.class_names == ("0", "1", "2")
    assert data.splits["test"].targets.tolist() == [2]


def test_celebas_attributes_are_a_multilabel_task(tmp_path, write_image, unchecked) -> None:
    folder = tmp_path / "celeba"
    files = [write_image(folder / "img_align_celeba" / f"{number:06d}.jpg").name for number in range(24)]
    signs = [[1 if place % 2 else -1, 1 if place % 3 else -1] for place in range(24)]
    attributes = [f"{name} {a:2d} {b:2d}" for name, (a, b) in zip(files, signs, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["24", "Bald Smiling ", *attributes]))
    parts = [f"{name} {0 if place < 16 else 1 if place < 20 else 2}" for place, name in enumerate(files)]
    (folder / "list_eval_partition.txt").write_text("\n".join(parts))
    (folder / "identity_CelebA.txt").write_text("\n".join(f"{name} 1" for name in files))
    for name in ("list_bbox_celeba.txt", "list_landmarks_align_celeba.txt"):
        (folder / name).write_text("\n".join(["24", "x", *(f"{each} 1" for each in files)]))
    data = prepared("CelebA", tmp_path, image_size=16)
    assert (data.task, data.class_names) == ("multilabel", ("Bald", "Smiling"))
    assert data.splits["test"].targets.tolist() == [[(a + 1) / 2, (b + 1) / 2] for a, b in signs[20:]]
    assert [len(data.splits[part]) for part in ("train", "val", "test")] == [16, 4, 4]


def write_pcam(root: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="pip install h5py")
    (root / "pcam").mkdir()
    for part, count in (("train", 12), ("valid", 4), ("test", 6)):
        for name, array in {
            "x": noise(count, 96, 96, 3),
            "y": np.arange(count).reshape(-1, 1, 1, 1) % 2,
        }.items():
            with h5py.File(root / "pcam" / f"camelyonpatch_level_2_split_{part}_{name}.h5", "w") as file:
                file[name] = array


def test_pcam_is_read_image_by_image(tmp_path) -> None:
    write_pcam(tmp_path)
    data = prepared("PCAM", tmp_path, image_size=96, resize="squash", normalization="unit")
    assert data.task == "binary"
    assert data.splits["test"].targets.tolist() == [0, 1] * 3
    pixels = data.splits["test"].images[torch.arange(6)].permute(0, 2, 3, 1)
    assert torch.equal(pixels, torch.from_numpy(noise(6, 96, 96, 3)))


@pytest.mark.skipif(importlib.util.find_spec("h5py") is not None, reason="h5py is installed")
def test_a_library_that_a_set_needs_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"data\.name=PCAM needs h5py, which is not installed"):
        prepared("PCAM", tmp_path)


@pytest.mark.parametrize("own", [True, False])
def test_a_file_of_a_set_that_is_exchanged_in_place_changes_its_images_stamps(tmp_path, own) -> None:
    class Listed(list):
        root = tmp_path

    if own:
        Listed._base_folder = tmp_path / "set"
    path = (tmp_path / "set" / "deep" if own else tmp_path) / "images.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0123")
    originals = DatasetOriginals([Listed("ab")], ["0", "1"])
    before, times = originals.stamps(), path.stat()
    assert originals.stamps() == before
    path.write_bytes(b"3210")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert all(now != was for now, was in zip(originals.stamps(), before, strict=True))
