"""Shards give the images of their folder, in batches that ranks share out and that resume exactly."""

from __future__ import annotations

import io
import os
import shlex
import sys
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from darkroom.datamodules import ImageFolder, ImageShards
from darkroom.datamodules.augmentation.pipeline import Augmentation
from darkroom.datamodules.loader import Batch, BatchLoader

webdataset = pytest.importorskip("webdataset", reason="needs the extra shards")
COUNTS = {"ant": 20, "bee": 16, "cat": 12}
SHARDS = 6  # of eight images


def write_shards(root: Path, folder: Path) -> Path:
    """The library's own writer; images of all classes in each shard, beside what we do not read."""
    files = sorted(folder.rglob("*.png"), key=lambda path: (path.stem, path.parent.name))
    root.mkdir()
    with webdataset.ShardWriter(f"{root}/train-%02d.tar", maxcount=8, verbose=0) as writer:
        for path in files:
            key = path.relative_to(folder).with_suffix("").as_posix()
            sample = {"__key__": key, "png": path.read_bytes(), "cls": path.parent.name, "json": b"{}"}
            writer.write(sample)
    return root


@pytest.fixture
def folder(write_folder) -> Path:
    return write_folder(COUNTS)


@pytest.fixture
def root(tmp_path, folder) -> Path:
    return write_shards(tmp_path / "shards", folder)


def opened(source: Callable[..., Any], root: Path | str, **arguments: Any) -> Any:
    fixed = {"image_size": 16, "batch_size": 5, "normalization": "unit", "val_fraction": 0.2}
    data = source(str(root), **{**fixed, **arguments})
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def shards(tmp_path, root) -> Callable[..., ImageShards]:
    return lambda **arguments: opened(ImageShards, root, **{"cache": str(tmp_path / "cache"), **arguments})


def images_by_name(data: Any, split: str) -> dict[str, tuple[int, bytes]]:
    """Label and pixels of each image, by class/name."""
    store = data.splits[split]
    pixels = store.images[torch.arange(len(store))]
    rows = zip(store.ids, store.targets.tolist(), pixels, strict=True)
    return {name.split(".tar/")[-1]: (target, image.numpy().tobytes()) for name, target, image in rows}


@pytest.mark.parametrize("cache_gib", [1.0, 0.0], ids=["cached", "streamed"])
def test_shards_hold_the_pixels_and_labels_of_their_folder(shards, folder, tmp_path, cache_gib) -> None:
    ours = shards(val_fraction=0.0, cache_gib=cache_gib)
    theirs = opened(ImageFolder, folder, val_fraction=0.0, cache=str(tmp_path / "other"))
    assert ours.class_names == theirs.class_names
    assert ours.splits["train"].images.is_streamed == (cache_gib == 0)
    assert images_by_name(ours, "train") == images_by_name(theirs, "train")


def test_parts_are_those_of_their_shards_or_drawn_by_id(shards) -> None:
    own = shards(train="train-{00..03}.tar", val="train-04.tar", test="train-05.*")
    sizes = {name: len(store) for name, store in own.splits.items()}
    assert sizes == {"train": 32, "test": 8, "val": 8}
    assert {name.partition("/")[0] for name in own.splits["val"].ids} == {"train-04.tar"}
    drawn = shards()
    assert 5 <= len(drawn.splits["val"]) <= 15
    assert set(drawn.splits["val"].ids).isdisjoint(drawn.splits["train"].ids)
    assert drawn.splits["val"].ids == shards().splits["val"].ids


def served(loader: BatchLoader, epochs: int = 1) -> list[Batch]:
    return [batch for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
@pytest.mark.parametrize("taken", [1, 4, 8, 11])
def test_a_restored_loader_serves_exactly_what_was_left(shards, taken, sampling) -> None:
    """In another process, as it were: with a new DataModule that knows the state alone."""
    arguments = {"mixed_shards": 2, "cache_gib": 0.0, "sampling": sampling}
    everything = served(shards(**arguments).train_dataloader(), epochs=2)
    killed = shards(**arguments).train_dataloader()
    list(islice((batch for _ in range(2) for batch in killed), taken))
    resumed = shards(**arguments)
    resumed.load_state_dict(killed.state_dict())
    left = served(resumed.train_dataloader(), epochs=2)[: len(everything) - taken]
    assert len(left) == len(everything) - taken
    for expected, batch in zip(everything[taken:], left, strict=True):
        assert torch.equal(expected.indices, batch.indices)
        assert torch.equal(expected.images, batch.images)
        assert expected.seed == batch.seed


@pytest.mark.parametrize("split", ["train", "val"])
def test_two_ranks_see_each_image_once_and_batch_by_batch_what_one_sees(shards, split) -> None:
    def loader_of(rank: int, world_size: int) -> BatchLoader:
        data = shards(mixed_shards=2, cache_gib=0.0)
        data._place = lambda: (rank, world_size)  # what Lightning's trainer would say
        return data.train_dataloader() if split == "train" else data._evaluation_loader("val")

    alone, first, second = served(loader_of(0, 1)), served(loader_of(0, 2)), served(loader_of(1, 2))
    assert len(alone) == len(first) == len(second)
    for whole, ours, theirs in zip(alone, first, second, strict=True):
        together = torch.empty_like(whole.indices)
        together[0::2], together[1::2] = ours.indices, theirs.indices
        assert torch.equal(together, whole.indices)
        assert torch.equal(ours.images, whole.images[0::2])
        assert torch.equal(ours.global_targets, whole.targets)
    seen = torch.cat([batch.indices for batch in first + second])
    assert sorted(seen.tolist()) == list(range(len(seen)))


def test_training_that_was_interrupted_ends_with_the_same_weights(shards, tmp_path) -> None:
    """Lightning's own checkpoint, taken within the second epoch."""

    class Network(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3 * 16 * 16, 3)

        def training_step(self, batch: Batch) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.layer(batch.images.flatten(1)), batch.targets)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    def fit(steps: int, checkpoint: Path | None = None) -> pl.Trainer:
        data = shards(mixed_shards=2, augmentation=Augmentation(resized_crop=(0.5, 1.0), horizontal_flip=0.5))
        torch.manual_seed(0)
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(Network(), data, ckpt_path=checkpoint)
        return trainer

    fit(11).save_checkpoint(tmp_path / "middle.ckpt")
    resumed, whole = fit(20, tmp_path / "middle.ckpt"), fit(20)
    for ours, expected in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_shards_behind_urls_are_copied_a_few_at_a_time(shards, root, tmp_path) -> None:
    """A command in place of a server; it leaves a line for each copy."""
    command = f"pipe:echo {{}} >> {shlex.quote(str(tmp_path / 'log'))}; cat {shlex.quote(str(root))}/{{}}"
    room = 3.5 * max(path.stat().st_size for path in root.iterdir()) / 2**30
    remote = {"cache_gib": 0.0, "mixed_shards": 2, "cache": str(tmp_path / "another")}
    data = opened(ImageShards, command, train="train-{00..05}.tar", copies_gib=room, **remote)
    local = shards(cache_gib=0.0, mixed_shards=2)
    copied_before = len((tmp_path / "log").read_text().split())
    pairs = zip(served(data.train_dataloader()), served(local.train_dataloader()), strict=True)
    for ours, expected in pairs:
        assert torch.equal(ours.images, expected.images)
    # Those open at the beginning come again at its end, and what was left of the last pass may be used.
    assert len((tmp_path / "log").read_text().split()) - copied_before <= SHARDS + 3
    copies = (tmp_path / "another" / "shards" / "copies").iterdir()
    assert sum(path.stat().st_size for path in copies) <= (room * 2**30) * 4.5 / 3.5
    with pytest.raises(ValueError, match=r"copies_gib=\S+ has no room for the data.mixed_shards=6"):
        opened(
            ImageShards, command, train="train-{00..05}.tar", copies_gib=room, **{**remote, "mixed_shards": 6}
        )
    with pytest.raises(ValueError, match=r"name them all"):
        opened(ImageShards, "https://127.0.0.1:9/birds", train="*.tar", **remote)
    with pytest.raises(ValueError, match=r"shard at pipe:cat /nowhere/train-0.tar can't be fetched"):
        opened(ImageShards, "pipe:cat /nowhere/{}", train="train-0.tar", **remote)


# What is invalid ----------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_all_bad_images_are_listed_by_shard_and_name(shards, root) -> None:
    write_tar(root / "train-06.tar", {"x.png": b"no image", "x.cls": b"ant", "y.jpg": b"", "y.cls": b"bee"})
    with pytest.raises(
        ValueError, match=r"(?s)2 of 50.*train-06.tar/x.png.*train-06.tar/y.jpg +holds no bytes"
    ):
        shards()
    data = shards(on_bad_image="skip")
    assert sum(len(store) for store in data.splits.values()) == 48
    assert sorted(data.facts()["skipped"]) == ["train-06.tar/x.png", "train-06.tar/y.jpg"]


@pytest.mark.parametrize("kept", [0.2, 0.5, "between two members"])
def test_a_shard_that_was_cut_short_is_named(shards, root, kept) -> None:
    path = root / "train-02.tar"
    with tarfile.open(path) as archive:
        boundary = archive.getmembers()[6].offset
    os.truncate(path, boundary if isinstance(kept, str) else int(kept * path.stat().st_size))
    with pytest.raises(ValueError, match=r"shard train-02.tar (is cut short|can't be read as a tar)"):
        shards()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": b"", "b.png": b"", "a.cls": b"1"}, r"no label \(.cls\) for b: expected"),
        ({"a.cls": b"1"}, "no image for a"),
        ({"a.png": b"", "a.jpg": b"", "a.cls": b"1"}, "several images for a"),
    ],
)
def test_a_sample_without_one_image_and_one_label_is_named(tmp_path, members, message) -> None:
    write_tar(tmp_path / "odd" / "0.tar", members)
    with pytest.raises(ValueError, match=message):
        opened(ImageShards, tmp_path / "odd", cache=str(tmp_path / "cache"))


def test_a_member_whose_name_is_not_utf8_is_named(tmp_path) -> None:
    odd = b"caf\xe9".decode(errors="surrogateescape")
    write_tar(tmp_path / "odd" / "0.tar", {f"{odd}.png": b"", f"{odd}.cls": b"ant"})
    with pytest.raises(ValueError, match=r"1 file has a name not in UTF-8.*: 0.tar/caf\\xe9.png"):
        opened(ImageShards, tmp_path / "odd", cache=str(tmp_path / "cache"))


def test_a_request_that_names_no_shard_or_one_twice_is_refused(shards) -> None:
    with pytest.raises(FileNotFoundError, match=r"no shard lies at .*train-9.tar"):
        shards(train="train-{00,9}.tar")
    with pytest.raises(ValueError, match=r"shard train-05.tar is among data.train=\*.tar and data.val="):
        shards(val="train-05.tar")


def test_labels_are_names_or_indices_into_the_classes(tmp_path, folder) -> None:
    picture = next(folder.rglob("*.png")).read_bytes()
    members = {f"{name}.{extension}": b"" for name in "abcdefgh" for extension in ("png", "cls")}
    for number, name in enumerate(members):
        members[name] = picture if name.endswith("png") else str(10 * (number // 2 % 2)).encode()
    write_tar(tmp_path / "indices" / "0.tar", members)
    arguments = {"cache": str(tmp_path / "cache"), "val_fraction": 0.0}
    data = opened(ImageShards, tmp_path / "indices", **arguments)
    assert (data.class_names, data.task) == (("0", "10"), "binary")
    with pytest.raises(ValueError, match="names 2 classes; found index 10"):
        opened(ImageShards, tmp_path / "indices", classes=["ant", "bee"], **arguments)
    several = opened(ImageShards, tmp_path / "indices", label_delimiter="0", **arguments)
    assert (several.class_names, several.class_counts()) == (("1",), [4])


def test_a_misspelled_class_is_pointed_out(shards, root, folder) -> None:
    picture = (folder / "ant" / "000.png").read_bytes()
    write_tar(root / "train-06.tar", {"x.png": picture, "x.cls": b"antt", "y.png": picture, "y.cls": b"Bee"})
    notes = shards(val_fraction=0.0).notes
    assert any("class antt has 1 image and is spelled like ant, which has 20" in note for note in notes)
    assert any("classes Bee (1 image) and bee (16 images) differ" in note for note in notes)


def test_without_the_library_one_sentence_names_it(root, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)  # as if it were not installed
    with pytest.raises(ValueError, match="ImageShards needs webdataset, which is not installed"):
        ImageShards(str(root)).prepare_data()


def test_headers_are_read_once_and_again_when_a_shard_changes(shards, root, monkeypatch) -> None:
    before = shards().listing.ids
    monkeypatch.setattr(tarfile, "open", None)
    assert shards().listing.ids == before
    monkeypatch.undo()
    (root / "train-05.tar").unlink()
    write_tar(root / "train-00.tar", {"new.png": b"", "new.cls": b"ant"})
    with pytest.raises(ValueError, match=r"train-00.tar/new.png +holds no bytes"):
        shards()


def test_a_shard_exchanged_in_place_with_size_and_time_kept_is_noticed(shards, root) -> None:
    before, path = shards(), root / "train-00.tar"
    content, times = path.read_bytes(), path.stat()
    damaged = bytearray(content)
    damaged[content.index(b"IDAT") + 8] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    with pytest.raises(ValueError, match=r"train-00\.tar/.*damaged PNG"):
        shards()
    path.write_bytes(content)
    assert shards().source_fingerprints == before.source_fingerprints
