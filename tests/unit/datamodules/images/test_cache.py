"""A cache gives the pixels of its files, is built once, and is never taken for whole when it is not."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import pickle
import resource
import signal
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.images import centre

from darkroom.datamodules.images import cache, cache_builder, file_images
from darkroom.datamodules.images.cache import BadImage, open_images
from darkroom.datamodules.images.cache_builder import CacheBuilder
from darkroom.datamodules.images.decoding import BadImageError, decode
from darkroom.datamodules.images.file_images import FileImages, MappedPixels
from darkroom.datamodules.images.index import byte_offsets
from darkroom.datamodules.images.readers import FileOriginals
from darkroom.datamodules.images.resizing import Sizing, fit
from darkroom.datamodules.threads import pool

CROP, SQUASH = Sizing(32, "crop"), Sizing(24, "squash", channels=1)
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


class CountedFiles(FileOriginals):
    """Notes in a file which images were read, in whatever process."""

    def __init__(self, paths: list[Path], log: Path, delay_s: float = 0.0) -> None:
        super().__init__(paths, [path.name for path in paths])
        self.log, self.delay_s = log, delay_s

    def read(self, place: int) -> bytes:
        time.sleep(self.delay_s)
        with self.log.open("a") as log:
            log.write(f"{place}\n")
        return super().read(place)

    def times_read(self) -> list[int]:
        return sorted(int(line) for line in self.log.read_text().split()) if self.log.exists() else []


def write_images(folder: Path, count: int = 20) -> list[Path]:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        height, width = random.integers(20, 120, 2)
        coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3)).astype(np.uint8))
        paths.append(folder / f"{number:03d}{'.png' if number % 5 == 0 else '.jpg'}")
        coarse.resize((int(width), int(height))).save(paths[-1])
    return paths


@pytest.fixture
def files(tmp_path: Path) -> CountedFiles:
    return CountedFiles(write_images(tmp_path / "images"), tmp_path / "log")


def opened(
    files: FileOriginals,
    sizing: Sizing = CROP,
    budget_bytes: int = 10**9,
    threads: int = 2,
    say: Callable[[str], None] = lambda sentence: None,
    folder: str = "cache",
) -> tuple[FileImages, list[BadImage]]:
    place = files.paths[0].parent.parent / folder
    return open_images(files, sizing, folder=place, budget_bytes=budget_bytes, threads=threads, say=say)


def caches(files: FileOriginals) -> list[Path]:
    return [path for path in (files.paths[0].parent.parent / "cache").iterdir() if path.is_dir()]


def all_places(images: FileImages) -> torch.Tensor:
    return torch.arange(len(images))


def crops_of(images: FileImages) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return images.random_resized_crops(all_places(images), SCALE, RATIO, generator)


# Pixels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("budget_bytes", [10**9, 0])
@pytest.mark.parametrize("sizing", [CROP, SQUASH], ids=["crop", "squash"])
def test_a_batch_is_each_file_decoded_and_fitted(
    files: CountedFiles, sizing: Sizing, budget_bytes: int, threads: int
) -> None:
    images, bad = opened(files, sizing, budget_bytes, threads)
    assert bad == []
    assert images.is_streamed == (budget_bytes == 0)
    places = torch.tensor([7, 0, 7, 19])
    batch = images[places]
    assert batch.shape == (4, *images.shape[1:])
    assert images.shape == (20, sizing.channels, sizing.size, sizing.size)
    for sample, place in enumerate(places.tolist()):
        pixels = decode(files.paths[place].read_bytes(), sizing.channels, sizing.shorter_side)
        expected = centre(fit(pixels, sizing), sizing)
        np.testing.assert_array_equal(batch[sample].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("sizing", [CROP, SQUASH], ids=["crop", "squash"])
def test_streamed_images_are_those_of_the_cache(files: CountedFiles, sizing: Sizing) -> None:
    cached, _ = opened(files, sizing)
    streamed, _ = opened(files, sizing, budget_bytes=0, folder="another")
    assert streamed.is_streamed
    assert not cached.is_streamed
    assert torch.equal(crops_of(cached), crops_of(streamed))
    assert torch.equal(cached.original_sizes(), streamed.original_sizes())
    assert list(cached.content_hashes()) == list(streamed.content_hashes())


def test_crops_differ_between_draws_and_not_between_threads(files: CountedFiles) -> None:
    images, alone = opened(files)[0], opened(files, threads=1)[0]
    assert torch.equal(crops_of(images), crops_of(alone))
    generator = torch.Generator().manual_seed(3)
    first = images.random_resized_crops(all_places(images), SCALE, RATIO, generator)
    second = images.random_resized_crops(all_places(images), SCALE, RATIO, generator)
    assert not torch.equal(first, second)


def test_a_selection_has_its_own_places(files: CountedFiles) -> None:
    images, _ = opened(files)
    odd = images.select(torch.arange(20) % 2 == 1)
    some = odd.select(torch.tensor([4, 0]))
    assert len(odd) == 10
    assert torch.equal(some[torch.tensor([0, 1])], images[torch.tensor([9, 1])])
    sizes = [Image.open(files.paths[place]).size[::-1] for place in (9, 1)]
    assert some.original_sizes().tolist() == [list(size) for size in sizes]


def test_hashes_are_equal_exactly_where_the_bytes_are(files: CountedFiles) -> None:
    files.paths[8].write_bytes(files.paths[3].read_bytes())
    hashes = opened(files)[0].content_hashes()
    equal = [(a, b) for a in range(20) for b in range(a) if hashes[a] == hashes[b]]
    assert equal == [(8, 3)]


# Bad images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget_bytes", [10**9, 0])
def test_all_bad_images_are_listed_and_the_others_served(files: CountedFiles, budget_bytes: int) -> None:
    whole, _ = opened(files, budget_bytes=budget_bytes, folder="before")
    expected = whole[torch.tensor([1, 3, 19])]
    files.paths[0].write_bytes(b"")
    files.paths[2].write_bytes(files.paths[2].read_bytes()[:-200])
    files.paths[4].write_text("no image at all")
    files.paths[18].unlink()
    for _ in range(2):  # built, then opened
        images, bad = opened(files, budget_bytes=budget_bytes)
        assert [one.id for one in bad] == ["000.png", "002.jpg", "004.jpg", "018.jpg"]
        for word, one in zip(["no bytes", "truncated", "no image", "cannot be read"], bad, strict=True):
            assert word in one.reason
        assert len(images) == 20
        kept = images.select(torch.tensor([1, 3, 19]))
        assert torch.equal(kept[torch.arange(3)], expected)


def test_an_image_whose_aspect_would_fill_the_memory_is_bad(files: CountedFiles) -> None:
    Image.new("L", (1, 600_000)).save(files.paths[0])
    _, bad = opened(files, Sizing(32, "crop"))
    _, squashed_bad = opened(files, Sizing(32, "squash"))
    assert [one.id for one in bad] == ["000.png"]
    assert "elongated" in bad[0].reason
    assert squashed_bad == []


def test_a_misnamed_image_is_served_and_noted(files: CountedFiles) -> None:
    Image.new("RGB", (40, 40), "red").save(files.paths[1], "PNG")
    images, bad = opened(files)
    assert bad == []
    assert [note for note in images.notes() if note] == ["is named .jpg but holds PNG"]
    assert images[torch.tensor([1])][0, :, 0, 0].tolist() == [255, 0, 0]


def test_a_streamed_file_that_broke_during_training_is_named(files: CountedFiles) -> None:
    images, _ = opened(files, budget_bytes=0)
    files.paths[6].write_bytes(b"gone")
    with pytest.raises(BadImageError, match=r"006\.jpg is no image.*changed meanwhile"):
        images[torch.tensor([6])]
    files.paths[6].unlink()
    with pytest.raises(BadImageError, match=r"006\.jpg cannot be read \(No such file.*changed meanwhile"):
        images[torch.tensor([6])]


def test_a_pipe_is_not_waited_for(files: CountedFiles) -> None:
    files.paths[4].unlink()
    os.mkfifo(files.paths[4])
    _, bad = opened(files)
    assert [(each.id, each.reason) for each in bad] == [(files.ids[4], "holds no bytes")]


def test_a_cache_that_can_be_no_folder_is_named(files: CountedFiles, tmp_path: Path) -> None:
    place = tmp_path / "occupied"
    place.write_text("")
    with pytest.raises(ValueError, match=r"^data\.cache=.*occupied.*File exists"):
        open_images(files, CROP, folder=place, budget_bytes=2**30, threads=1)


# Building once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget_bytes", [10**9, 0])
def test_images_are_read_once_for_all_runs(files: CountedFiles, budget_bytes: int) -> None:
    for _ in range(3):
        opened(files, budget_bytes=budget_bytes)
    assert files.times_read() == list(range(20))


def test_what_streams_says_so_and_is_cached_once_there_is_room(files: CountedFiles) -> None:
    said: list[str] = []
    opened(files, budget_bytes=50_000, say=said.append)
    opened(files, budget_bytes=50_000, say=said.append)
    assert len([sentence for sentence in said if "stream from their files" in sentence]) == 2
    images, _ = opened(files)
    assert not images.is_streamed
    assert len(caches(files)) == 1


def test_a_changed_file_is_noticed_and_the_stale_cache_removed(files: CountedFiles) -> None:
    before, _ = opened(files)
    stale = caches(files)
    Image.new("RGB", (50, 40), "lime").save(files.paths[5], "PNG")
    after, _ = opened(files)
    assert after[torch.tensor([5])][0, :, 0, 0].tolist() == [0, 255, 0]
    assert len(caches(files)) == 1
    assert caches(files) != stale
    assert before[torch.tensor([4])].equal(after[torch.tensor([4])])  # still mapped by those that had it


def test_another_sizing_has_a_cache_beside(files: CountedFiles) -> None:
    opened(files, CROP)
    opened(files, SQUASH)
    assert len(caches(files)) == 2


@pytest.mark.parametrize("name", ["pixels.bin", "index.parquet"])
def test_a_cut_file_of_the_cache_is_noticed(files: CountedFiles, name: str) -> None:
    expected = opened(files)[0][torch.arange(20)]
    os.truncate(caches(files)[0] / name, 100)
    assert torch.equal(opened(files)[0][torch.arange(20)], expected)


# Stale or damaged -----------------------------------------------------------------------------------


def exchange_in_place(path: Path, content: bytes) -> None:
    """Writes other content of the same size, and puts the modification time back."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def two_bitmaps(files: CountedFiles) -> bytes:
    """Makes the second and the third of the files images of equal size; gives the third's bytes."""
    for place, colour in ((1, "red"), (2, "lime")):
        Image.new("RGB", (40, 40), colour).save(files.paths[place], "BMP")
    return files.paths[2].read_bytes()


@pytest.mark.parametrize("budget_bytes", [10**9, 0])
def test_a_file_exchanged_in_place_with_size_and_time_kept_is_noticed(
    files: CountedFiles, budget_bytes: int
) -> None:
    lime = two_bitmaps(files)
    before, _ = opened(files, budget_bytes=budget_bytes)
    exchange_in_place(files.paths[1], lime)
    after, _ = opened(files, budget_bytes=budget_bytes)
    assert after[torch.tensor([1])][0, :, 0, 0].tolist() == [0, 255, 0]
    assert before.content_hashes()[1] != after.content_hashes()[1] == after.content_hashes()[2]
    assert len(caches(files)) == 1


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(files: CountedFiles) -> None:
    two_bitmaps(files)
    status = files.paths[1].stat()
    os.utime(files.paths[2], ns=(status.st_atime_ns, status.st_mtime_ns))
    opened(files)
    files.paths[2].rename(files.paths[1])
    files.paths[1].with_name("002.jpg").write_bytes(files.paths[1].read_bytes())
    after, _ = opened(files)
    assert after[torch.tensor([1])][0, :, 0, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize("budget_bytes", [10**9, 0])
def test_touched_and_copied_files_are_read_once_and_not_decoded(
    files: CountedFiles, budget_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = opened(files, budget_bytes=budget_bytes)
    places = caches(files)
    os.utime(files.paths[3])
    for path in files.paths[4:6]:  # another inode, another time
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    files.log.unlink()
    monkeypatch.setattr(CacheBuilder, "build", lambda self: pytest.fail("decoded anew"))
    said: list[str] = []
    for _ in range(2):
        after, bad = opened(files, budget_bytes=budget_bytes, say=said.append)
        assert bad == []
        assert after.content_hashes() == before.content_hashes()
    assert files.times_read() == [3, 4, 5]
    assert next(sentence for sentence in said if "again" in sentence).startswith("Reading 3 images again")
    assert caches(files) == places
    assert torch.equal(crops_of(before), crops_of(after))


def test_processes_that_find_touched_files_together_read_them_once(files: CountedFiles) -> None:
    opened(files)
    os.utime(files.paths[3])
    files.log.unlink()
    said = [in_another_process(files.log.parent, 0.05)[1] for _ in range(3)]
    assert [each.recv()[-1] for each in said] == ["cached 0"] * 3
    assert files.times_read() == [3]


def flip_a_bit(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("sizing", [CROP, SQUASH], ids=["crop", "squash"])
def test_a_damaged_block_is_named_when_it_is_first_touched_and_others_are_served(
    files: CountedFiles, sizing: Sizing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cache, cache_builder, file_images):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    expected, _ = opened(files, sizing)
    whole = expected[all_places(expected)]
    (place,) = caches(files)
    offsets = byte_offsets(expected._fitted_sizes, sizing.channels).tolist()
    flip_a_bit(place / "pixels.bin", (offsets[12] + offsets[13]) // 2)
    images, _ = opened(files, sizing)
    far = torch.tensor([0, 5, 19])
    assert torch.equal(images[far], whole[far])
    for _ in range(2):  # it does not pass the second time either
        with pytest.raises(BadImageError, match=rf"{place}/pixels\.bin is damaged: .* 012\.jpg.* Delete the"):
            images[torch.tensor([12])]
    copy = pickle.loads(pickle.dumps(images))
    with pytest.raises(BadImageError, match=r"pixels\.bin is damaged"):
        copy[all_places(copy)]


def test_each_block_is_checked_once_in_a_process(
    files: CountedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cache, cache_builder, file_images):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    images, _ = opened(files, SQUASH)
    checked: list[int] = []

    def counted(content: memoryview, crc32: Callable[[memoryview], int] = zlib.crc32) -> int:
        checked.append(len(content))
        return crc32(content)

    monkeypatch.setattr(zlib, "crc32", counted)
    for _ in range(3):
        images[all_places(images)]
    assert sum(checked) == (caches(files)[0] / "pixels.bin").stat().st_size


def test_a_flipped_bit_of_the_index_makes_the_cache_anew(files: CountedFiles) -> None:
    expected, _ = opened(files)
    index = caches(files)[0] / "index.parquet"
    place = index.read_bytes().index(expected.content_hashes()[0].encode())
    flip_a_bit(index, place)
    assert opened(files)[0].content_hashes() == expected.content_hashes()
    assert len(files.times_read()) == 40


def test_a_cache_of_an_older_format_is_made_anew(files: CountedFiles) -> None:
    opened(files)
    index = caches(files)[0] / "index.parquet"
    table = pq.read_table(index)
    for older in (table.drop_columns("stamp"), table.replace_schema_metadata(None)):
        files.log.unlink()
        pq.write_table(older, index)
        opened(files)
        assert files.times_read() == list(range(20))
        index = caches(files)[0] / "index.parquet"


def in_another_process(
    folder: Path, delay_s: float, most_bytes: int | None = None
) -> tuple[BaseProcess, Connection]:
    """One that opens the images, and where what it says comes out."""
    context = multiprocessing.get_context("fork")  # it need not import anything
    said, says = context.Pipe(duplex=False)
    process = context.Process(target=_open, args=(folder, delay_s, most_bytes, says))
    process.start()
    says.close()
    return process, said


def _open(folder: Path, delay_s: float, most_bytes: int | None, says: Connection) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes,) * 2)
    files = CountedFiles(sorted((folder / "images").iterdir()), folder / "log", delay_s)
    lines: list[str] = []
    images, bad = opened(files, say=lines.append)
    says.send([*lines, f"{'streamed' if images.is_streamed else 'cached'} {len(bad)}"])


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_was_interrupted_is_done_anew(files: CountedFiles, ending: signal.Signals) -> None:
    process, _ = in_another_process(files.log.parent, 0.2)
    while len(files.times_read()) < 5:
        assert process.is_alive()
        time.sleep(0.02)
    assert process.pid
    os.kill(process.pid, ending)
    process.join(30)
    assert process.exitcode not in (0, None)
    if ending == signal.SIGINT:
        assert caches(files) == []
    files.log.unlink()
    images, bad = opened(files)
    assert files.times_read() == list(range(20))
    assert bad == []
    assert len(caches(files)) == 1
    fresh, _ = opened(files, folder="another")
    assert torch.equal(images[torch.arange(20)], fresh[torch.arange(20)])


def test_processes_that_start_together_build_once(files: CountedFiles) -> None:
    said = [in_another_process(files.log.parent, 0.05)[1] for _ in range(3)]
    assert [each.recv()[-1] for each in said] == ["cached 0"] * 3
    assert files.times_read() == list(range(20))


def test_a_full_disk_makes_images_stream(files: CountedFiles) -> None:
    """A limit on the size of files is the error that a test can have without filling a disk."""
    *lines, last = in_another_process(files.log.parent, 0, 40_000)[1].recv()
    assert any("ran out of disk space" in line for line in lines)
    assert last == "streamed 0"
    left = [path for cache in caches(files) for path in cache.iterdir()]
    assert [path.name for path in left] == ["index.parquet"]


# Processes and memory -----------------------------------------------------------------------------


def test_a_pickled_copy_serves_the_same_images(files: CountedFiles) -> None:
    images, _ = opened(files)
    copy = pickle.loads(pickle.dumps(images.select(torch.tensor([3, 2]))))
    assert torch.equal(copy[torch.tensor([0, 1])], images[torch.tensor([3, 2])])


def _mean_of_crops(images: FileImages, answer: multiprocessing.SimpleQueue[float]) -> None:
    torch.set_num_threads(1)
    answer.put(crops_of(images).double().mean().item())


def test_a_forked_process_serves_the_same_images(files: CountedFiles) -> None:
    images, _ = opened(files)
    expected = crops_of(images).double().mean().item()  # the pool's threads exist here, and not in the child
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.SimpleQueue[float] = context.SimpleQueue()
    child = context.Process(target=_mean_of_crops, args=(images, answer))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answer.get() == expected


def test_threads_of_the_pool_compute_on_one_core_whatever_the_others_do() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        executor = pool(5)  # which no other test asks for
        found = [executor.submit(torch.get_num_threads) for _ in range(20)]
        assert {each.result() for each in found} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_of_the_pool_leave_torchs_number_of_threads_alone(files: CountedFiles) -> None:
    before = torch.get_num_threads()
    crops_of(opened(files, threads=3)[0])
    assert torch.get_num_threads() == before
    found = multiprocessing.pool.ThreadPool(1).apply(torch.get_num_threads)
    assert found == before


def test_memory_stays_bounded_while_a_larger_cache_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_images, "RESIDENT_BYTES", 32 * 2**20)
    side, count = 256, 1600  # 300 MiB
    with (tmp_path / "pixels.bin").open("wb") as file:
        file.truncate(side * side * 3 * count)
    zeros = zlib.crc32(bytes(file_images.BLOCK_BYTES))
    checksums = [zeros] * (side * side * 3 * count // file_images.BLOCK_BYTES)
    sizes = torch.full((count, 2), side)
    pixels = MappedPixels(tmp_path / "pixels.bin", sizes, 3, checksums, [""] * count)
    process, before = psutil.Process(), psutil.Process().memory_info().rss
    peak = 0
    for place in range(count):
        assert int(pixels.window(place, (0, 0, side, side)).sum()) == 0
        peak = max(peak, process.memory_info().rss)
    assert peak - before < 96 * 2**20
    for places in torch.arange(count).split(16):
        pixels.rows(places, side)
        peak = max(peak, process.memory_info().rss)
    assert peak - before < 96 * 2**20
