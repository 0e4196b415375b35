"""Files are decoded once, by one process; what changed, broke off or does not fit is noticed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import cache
from datamodules.cache import FileOriginals, open_images
from datamodules.sizing import Sizing

SQUASH, CROP = Sizing(16, "squash"), Sizing(16, "crop")


@pytest.fixture
def originals(tmp_path, write_image) -> FileOriginals:
    """Thirty pictures of different shapes."""
    shapes = [(20 + number, 50 - number) for number in range(30)]
    paths = [
        write_image(tmp_path / "in" / f"{n}.png", (7 * n, 90, 200), size) for n, size in enumerate(shapes)
    ]
    return FileOriginals(paths, [path.name for path in paths])


def opened(originals, folder: Path, sizing: Sizing = CROP, budget: int = 2**30, **options):
    return open_images(originals, sizing, folder=folder, budget_bytes=budget, threads=2, **options)


def content(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*.*")
        if path.is_file()
    }


@pytest.mark.parametrize("sizing", [SQUASH, CROP])
@pytest.mark.parametrize("budget", [2**30, 0])
def test_images_are_pillows_resized_cached_or_not(originals, tmp_path, sizing, budget) -> None:
    images, bad = opened(originals, tmp_path / "cache", sizing, budget)
    assert (bad, images.shape) == ([], (30, 3, 16, 16))
    for place in (0, 9, 29):
        picture = Image.open(originals.paths[place])
        height, width = sizing.shape_of(picture.height, picture.width)
        kept = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - 16) // 2, (height - 16) // 2
        expected = np.asarray(kept.crop((left, top, left + 16, top + 16))).astype(int)
        ours = images[torch.tensor([place])][0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(ours - expected).max() <= 2
    assert images.original_sizes()[3].tolist() == [47, 23]


def test_the_second_time_nothing_is_decoded(originals, tmp_path, monkeypatch) -> None:
    first, _ = opened(originals, tmp_path / "cache")
    before = content(tmp_path / "cache")
    monkeypatch.setattr(cache, "_decode", None)
    second, _ = opened(originals, tmp_path / "cache")
    places = torch.arange(30)
    assert torch.equal(first[places], second[places])
    assert content(tmp_path / "cache") == before


def test_a_file_that_changed_has_the_cache_made_anew_and_the_old_one_removed(
    originals, tmp_path, write_image
) -> None:
    first, _ = opened(originals, tmp_path / "cache")
    write_image(originals.paths[4], (0, 250, 0), (33, 33))
    second, _ = opened(originals, tmp_path / "cache")
    changed = (first[torch.arange(30)] != second[torch.arange(30)]).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [4]
    assert first.content_hashes()[4] != second.content_hashes()[4]
    assert len(list((tmp_path / "cache").glob("*/index.parquet"))) == 1


def test_what_broke_off_is_not_taken_for_whole(originals, tmp_path, monkeypatch) -> None:
    def break_off(*arguments):
        raise KeyboardInterrupt

    whole, _ = opened(originals, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("pandas.DataFrame.to_parquet", break_off)
        with pytest.raises(KeyboardInterrupt):
            opened(originals, tmp_path / "cache")
    (place,) = (path.parent for path in (tmp_path / "whole").glob("*/index.parquet"))
    (tmp_path / "cache" / place.name).mkdir(exist_ok=True)  # as a kill might leave it
    shutil.copy(place / "pixels.bin", tmp_path / "cache" / place.name)
    again, _ = opened(originals, tmp_path / "cache")
    assert torch.equal(again[torch.arange(30)], whole[torch.arange(30)])


def build_in_process(paths, ids, folder, queue) -> None:
    said: list[str] = []
    built = []
    real = cache._decode_all
    cache._decode_all = lambda *arguments: built.append(1) or real(*arguments)
    opened(FileOriginals(paths, ids), folder, say=said.append)
    queue.put(len(built))


def test_two_processes_never_build_it_twice(originals, tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (originals.paths, originals.ids, tmp_path / "cache", queue)
    processes = [context.Process(target=build_in_process, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    assert sum(queue.get(timeout=60) for _ in processes) == 1
    for process in processes:
        process.join()


def test_more_than_the_budget_is_said_and_streamed_after_one_verification(
    originals, tmp_path, monkeypatch
) -> None:
    said: list[str] = []
    streamed, _ = opened(originals, tmp_path / "cache", budget=1000, say=said.append)
    assert streamed.file is None
    assert "more than data.cache_gib" in said[0]
    assert not list((tmp_path / "cache").rglob("pixels.bin"))
    with monkeypatch.context() as patched:
        patched.setattr(cache, "_decode", None)  # verified once
        opened(originals, tmp_path / "cache", budget=1000)
    cached, _ = opened(originals, tmp_path / "cache")
    assert cached.file is not None  # the budget was raised
    assert torch.equal(cached[torch.arange(30)], streamed[torch.arange(30)])


def test_a_full_disk_leaves_nothing_behind_and_streams(originals, tmp_path) -> None:
    small, large = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, large))  # Python ignores SIGXFSZ, and writing fails
    try:
        images, bad = opened(originals, tmp_path / "cache", SQUASH, say=lambda text: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, large))
    assert (images.file, bad) == (None, [])
    assert images[torch.arange(30)].shape == (30, 3, 16, 16)
    assert not list((tmp_path / "cache").rglob("pixels.bin"))


def test_a_choice_is_a_view_that_other_processes_can_have(originals, tmp_path) -> None:
    images, _ = opened(originals, tmp_path / "cache")
    chosen = images.select(torch.tensor([7, 3, 20]))
    assert torch.equal(chosen[torch.arange(3)], images[torch.tensor([7, 3, 20])])
    assert chosen.joined(chosen).shape[0] == 6
    assert torch.equal(pickle.loads(pickle.dumps(chosen))[torch.arange(3)], chosen[torch.arange(3)])


def test_crops_are_parts_of_the_image_and_depend_on_the_generator_alone(originals, tmp_path) -> None:
    images, _ = opened(originals, tmp_path / "cache")
    places = torch.arange(30)

    def crops(seed: int, places: torch.Tensor = places) -> torch.Tensor:
        return images.random_resized_crops(places, (0.2, 1.0), torch.Generator().manual_seed(seed))

    assert torch.equal(crops(1), crops(1))
    assert not torch.equal(crops(1), crops(2))
    means = crops(3).float().mean((2, 3))
    whole = images[places].float().mean((2, 3))
    assert (means - whole).abs().max() < 12  # each picture is noise around one colour


def test_reading_a_large_cache_keeps_little_of_it_in_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("datamodules.images.RESIDENT_BYTES", 8 * 2**20)
    paths = []
    for number in range(40):
        path = tmp_path / f"{number}.bmp"
        Image.new("RGB", (1000, 1000), (number, 5, 9)).save(path)
        paths.append(path)
    images, _ = opened(
        FileOriginals(paths, [path.name for path in paths]), tmp_path / "cache", Sizing(1000, "squash")
    )
    assert images.file.path.stat().st_size == 40 * 3_000_000

    def mapped() -> int:
        """Bytes of the cache that count as this process's memory."""
        lines = Path(f"/proc/{os.getpid()}/smaps").read_text().split("\n")
        at = next(place for place, line in enumerate(lines) if "pixels.bin" in line)
        return next(int(line.split()[1]) * 1024 for line in lines[at:] if line.startswith("Rss"))

    largest = 0
    for _ in range(2):
        for place in range(40):
            images[torch.tensor([place])]
            largest = max(largest, mapped())
    assert largest < 20 * 2**20
