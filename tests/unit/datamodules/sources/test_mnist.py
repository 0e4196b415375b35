"""Idx files are read as they are, and whatever is wrong with them is said by path."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray

from darkroom.datamodules.sources.mnist import MNIST, FashionMNIST, read_idx

FILES = {
    "train-images-idx3-ubyte": (30, 28, 28),
    "train-labels-idx1-ubyte": (30,),
    "t10k-images-idx3-ubyte": (12, 28, 28),
    "t10k-labels-idx1-ubyte": (12,),
}
REAL_DATA = os.environ.get("DARKROOM_DATA")


def arrays() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8)
        for name, shape in FILES.items()
    }


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_files(folder: Path, *, zipped: bool = False, dotted: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays().items():
        spelled = name.replace("-idx", ".idx") if dotted else name
        if zipped:
            (folder / f"{spelled}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / spelled).write_bytes(idx_bytes(array))
    return folder


@pytest.fixture(autouse=True)
def _no_system_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for source in (MNIST, FashionMNIST):
        monkeypatch.setattr(source, "system_folder", tmp_path / "system" / source.system_folder.name)


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_are_read_gzipped_or_not_and_in_either_spelling(
    tmp_path: Path, zipped: bool, dotted: bool
) -> None:
    data = MNIST(root=str(write_files(tmp_path, zipped=zipped, dotted=dotted)), download=False)
    data.prepare_data()
    source = data.load()
    expected = arrays()
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = (expected[f"{prefix}-{kind}-ubyte"] for kind in ("images-idx3", "labels-idx1"))
        assert source[split].images.dtype == torch.uint8
        assert source[split].targets.dtype == torch.int64
        np.testing.assert_array_equal(source[split].images.numpy()[:, 0], images)
        np.testing.assert_array_equal(source[split].targets.numpy(), labels)
        assert source[split].ids[:2] == [f"{split}/00000", f"{split}/00001"]


@pytest.mark.parametrize(
    "folder", ["data", "data/FashionMNIST/raw", "data/fashion-mnist", "system/fashion-mnist"]
)
def test_files_are_found_in_root_below_it_and_in_the_systems_folder(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path / folder)
    data = FashionMNIST(root=str(tmp_path / "data"), download=False)
    data.prepare_data()
    assert len(data.load()["test"]) == 12


def test_the_official_test_set_stays_whole_and_validation_comes_from_train(tmp_path: Path) -> None:
    data = MNIST(root=str(write_files(tmp_path)), val_fraction=0.3)
    data.setup()
    np.testing.assert_array_equal(
        data.splits["test"].images.numpy()[:, 0], arrays()["t10k-images-idx3-ubyte"]
    )
    together = [*data.splits["train"].ids, *data.splits["val"].ids]
    assert sorted(together) == [f"train/{index:05d}" for index in range(30)]


# What can be wrong ------------------------------------------------------------------------------


def corrupt(folder: Path, name: str, content: bytes) -> MNIST:
    write_files(folder)
    (folder / name).write_bytes(content)
    return MNIST(root=str(folder))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    whole = idx_bytes(arrays()["train-images-idx3-ubyte"])
    for kept in (len(whole) - 1, 20, 15, 6, 4):  # within pixels, then within the header
        data = corrupt(tmp_path, "train-images-idx3-ubyte", whole[:kept])
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte is (cut short|damaged)"):
            data.load()


def test_a_file_longer_than_its_header_says_is_named(tmp_path: Path) -> None:
    whole = idx_bytes(arrays()["t10k-labels-idx1-ubyte"])
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte is damaged.* 12 bytes, 13 came"):
        corrupt(tmp_path, "t10k-labels-idx1-ubyte", whole + b"\0").load()


@pytest.mark.parametrize("content", [b"", b"\0\0", b"<html>404</html>", b"\0\0\x0d\x01\0\0\0\1\0\0\0\0"])
def test_a_file_of_another_format_is_named(tmp_path: Path, content: bytes) -> None:
    data = corrupt(tmp_path, "train-labels-idx1-ubyte", content)
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte is not an idx file of unsigned bytes"):
        data.load()


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    # Half noise, stored as it is, and half zeros, compressed: damage shows in different ways.
    zipped = gzip.compress(idx_bytes(arrays()["train-images-idx3-ubyte"]) + bytes(20_000))
    path = tmp_path / "images.gz"
    cut = [zipped[:kept] for kept in (5, len(zipped) // 2, len(zipped) - 9)]
    flipped = [
        zipped[:place] + bytes([zipped[place] ^ 0xFF]) + zipped[place + 1 :]
        for place in (0, 12, len(zipped) // 2, len(zipped) - 20, len(zipped) - 6)
    ]
    for content in [*cut, *flipped, b"plain text"]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"images\.gz is not a whole gzip file"):
            read_idx(path)


def test_a_label_beyond_the_classes_is_named(tmp_path: Path) -> None:
    labels = arrays()["train-labels-idx1-ubyte"]
    labels[3] = 10
    data = corrupt(tmp_path, "train-labels-idx1-ubyte", idx_bytes(labels))
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte has label 10: expected 0 to 9"):
        data.load()


def test_images_of_another_size_are_named(tmp_path: Path) -> None:
    images = np.zeros((30, 32, 32), dtype=np.uint8)
    data = corrupt(tmp_path, "train-images-idx3-ubyte", idx_bytes(images))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte holds images of .*32.*: expected 28x28"):
        data.load()


def test_fewer_labels_than_images_are_named(tmp_path: Path) -> None:
    labels = arrays()["train-labels-idx1-ubyte"][:29]
    data = corrupt(tmp_path, "train-labels-idx1-ubyte", idx_bytes(labels))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte \(29,\): expected .* as many labels"):
        data.load()


@pytest.mark.parametrize("missing", list(FILES))
def test_a_missing_file_without_download_says_where_it_was_looked_for(tmp_path: Path, missing: str) -> None:
    (write_files(tmp_path) / missing).unlink()
    data = MNIST(root=str(tmp_path), download=False)
    with pytest.raises(FileNotFoundError, match=r"data\.download=true") as caught:
        data.prepare_data()
    assert str(tmp_path.resolve()) in str(caught.value)
    assert str(MNIST.system_folder) in str(caught.value)


def test_loading_before_preparing_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="call prepare_data first"):
        MNIST(root=str(tmp_path)).load()


# Download ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of an HTTP server on this machine."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("source", [MNIST, FashionMNIST])
def test_a_download_that_fails_is_one_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: type[MNIST]
) -> None:
    nowhere = (tmp_path / "nowhere").as_uri() + "/"
    monkeypatch.setattr(getattr(torchvision.datasets, source.torchvision_name), "mirrors", [nowhere])
    with pytest.raises(FileNotFoundError, match=r"downloading them failed.*(?s:.)*Set data\.root") as caught:
        source(root=str(tmp_path / "data")).prepare_data()
    assert str(tmp_path / "data") in str(caught.value)


def test_what_is_downloaded_is_found_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = write_files(tmp_path / "mirror", zipped=True)
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(mirror.iterdir())]
    data = MNIST(root=str(tmp_path / "data"))
    with serving(mirror) as address:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        data.prepare_data()
    np.testing.assert_array_equal(
        data.load()["train"].images.numpy()[:, 0], arrays()["train-images-idx3-ubyte"]
    )


# What is known without files --------------------------------------------------------------------


@pytest.mark.parametrize("source", [MNIST, FashionMNIST])
def test_classes_shape_and_counts_need_no_files(tmp_path: Path, source: type[MNIST]) -> None:
    data = source(root=str(tmp_path / "missing"), download=False, val_fraction=0.0)
    assert (len(data.class_names), data.image_shape, data.num_train_images) == (10, (1, 28, 28), 60_000)
    assert not (tmp_path / "missing").exists()


def test_fashion_classes_are_in_torchvisions_order() -> None:
    assert list(FashionMNIST.class_names) == torchvision.datasets.FashionMNIST.classes


@pytest.mark.skipif(REAL_DATA is None, reason="DARKROOM_DATA names no folder with fashion_mnist/ and mnist/")
@pytest.mark.parametrize(("source", "folder"), [(FashionMNIST, "fashion_mnist"), (MNIST, "mnist")])
def test_the_real_sets_have_their_known_counts(source: type[MNIST], folder: str) -> None:
    assert REAL_DATA is not None
    data = source(root=str(Path(REAL_DATA) / folder), download=False)
    without_files = data.num_train_images
    data.prepare_data()
    data.setup()
    assert data.num_train_images == without_files
    assert len(data.splits["train"]) + len(data.splits["val"]) == 60_000
    assert len(data.splits["test"]) == 10_000
    counts = np.add(data.class_counts("train"), data.class_counts("val")).tolist()
    if source is FashionMNIST:
        assert counts == [6_000] * 10
        assert data.class_counts("test") == [1_000] * 10
    else:  # the counts on LeCun's page are of digits as written, not balanced
        assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert data.class_counts("test") == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
