"""A researcher's own images, from a folder: trained on, searched over, refused when they are broken."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.training import run_id, wait_for_epoch

from darkroom.datamodules import Synthetic
from darkroom.datamodules.images.decoding import BadImageError
from darkroom.experiments.errors import RunError
from darkroom.experiments.tracking.run_lifecycle import recording

SMALL = ["--trainer.max_epochs=2", "--model.backbone_options.widths=[8]", "--data.batch_size=16"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Forty drawn shapes of each of three kinds, as JPEGs of different sizes, half as many for validation."""
    root = tmp_path_factory.mktemp("pictures")
    source = Synthetic(num_images=120, side=48)
    for part, store in source.load().items():
        folder = {"train": "train", "test": "val"}[part]
        for number, (image, target) in enumerate(zip(store.images, store.targets.tolist(), strict=True)):
            path = root / folder / source.class_names[target] / f"{number:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            picture.resize((60 + number, 200 - number)).save(path, quality=95)
    return root


@pytest.fixture(scope="module")
def recipe(pictures) -> Path:
    path = pictures.parent / "shapes.yaml"
    recipe = {
        "name": "shapes/cnn",
        "data": {
            "class_path": "ImageFolder",
            "init_args": {
                "root": str(pictures),
                "image_size": 32,
                "cache": str(pictures.parent / "cache"),
                "augmentation": {"resized_crop": [0.5, 1.0], "horizontal_flip": 0.5},
            },
        },
        "model": "ImageClassifier",
        "sweep": {"trials": 3, "pruner": "none", "space": {"model.lr": {"low": 1.0e-4, "high": 1.0e-2}}},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_set_without_test_images_is_judged_on_validation_and_says_so(darkroom, store, recipe) -> None:
    answer = darkroom("train", str(recipe), *SMALL)
    assert "there are no test images" in answer.output
    run = store.find_run(run_id(answer.output))
    assert not any(name.startswith("test/") for name in run.metrics)
    assert (len(run.predictions("val")), run.read_text("data/facts.json").count('"train"')) == (30, 3)
    again = darkroom("evaluate", run.run_id, "--split=val")
    assert "+0.0e+00" in again.output
    assert "has no test images; it has train and val" in darkroom("evaluate", run.run_id).errors
    moved = darkroom("evaluate", run.run_id, "--split=val", "--data.root=nowhere")
    assert (moved.status, "nowhere is no folder" in moved.errors) == (2, True)


def test_the_same_seed_gives_the_same_bits_from_files_too(darkroom, store, recipe) -> None:
    runs = [store.find_run(run_id(darkroom("train", str(recipe), *SMALL).output)) for _ in range(2)]
    assert runs[0].predictions("val").equals(runs[1].predictions("val"))


def test_the_logged_model_predicts_what_is_stored(darkroom, store, recipe, pictures) -> None:
    exact = "--trainer.precision=32-true"  # what is logged computes so
    run = store.find_run(run_id(darkroom("train", str(recipe), *SMALL, exact).output))
    stored = run.predictions("val")
    model = mlflow.pytorch.load_model(f"runs:/{run.run_id}/model")
    from darkroom.experiments.config.experiment import parse_experiment

    data = parse_experiment([run.read_text("config.yaml")], {}).data
    data.setup()
    assert list(stored["id"]) == list(data.splits["val"].ids)
    with torch.no_grad():
        ours = model(data.splits["val"].images[torch.arange(30)].contiguous()).numpy()
    np.testing.assert_allclose(ours, stored[["prob_0", "prob_1", "prob_2"]], atol=1e-5)


def test_a_sweep_decodes_once_for_all_of_its_trials(workspace, recipe, pictures, tmp_path) -> None:
    answer = workspace.run("sweep", str(recipe), *SMALL, f"--data.cache={tmp_path}", "--sweep.confirm=null")
    assert answer.status == 0, answer.errors
    assert "3 trials: 3 complete" in answer.output
    assert len(list(tmp_path.glob("*/pixels.bin"))) == 1


@pytest.fixture
def another_picture(pictures: Path) -> Iterator[Callable[[], None]]:
    """Adds one when it is called, for the length of the test."""
    added = pictures / "train" / "disc" / "added.png"
    yield lambda: Image.new("RGB", (40, 40), "red").save(added)
    added.unlink(missing_ok=True)


def test_a_run_does_not_go_on_with_other_images(workspace, store, recipe, another_picture) -> None:
    process = workspace.start("train", str(recipe), *SMALL, "--trainer.max_epochs=200")
    interrupted = wait_for_epoch(workspace.folder, 1, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    before = store.find_run(interrupted)
    another_picture()
    answer = workspace.run("train", "--resume", interrupted)
    assert answer.status == 2
    assert "was begun with other images" in answer.errors
    assert "1 are new" in answer.errors
    after = store.find_run(interrupted)
    assert (before.status, before.metrics) == (after.status, after.metrics)
    assert after.status == "KILLED"


@pytest.fixture
def exchanged(pictures: Path) -> Iterator[Callable[[], None]]:
    """Puts one image's pixels in another's place when it is called, with size and time kept, for the test."""
    path, other = (pictures / "train" / "disc" / name for name in ("exchanged.bmp", "other.bmp"))
    for place, colour in ((path, "red"), (other, "blue")):
        Image.new("RGB", (40, 40), colour).save(place)
    times = path.stat()

    def exchange() -> None:
        path.write_bytes(other.read_bytes())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    yield exchange
    path.unlink()
    other.unlink()


def test_a_run_does_not_go_on_with_an_image_exchanged_in_place(workspace, store, recipe, exchanged) -> None:
    process = workspace.start("train", str(recipe), *SMALL, "--trainer.max_epochs=200")
    interrupted = wait_for_epoch(workspace.folder, 1, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    exchanged()
    answer = workspace.run("train", "--resume", interrupted)
    assert answer.status == 2
    assert "was begun with other images" in answer.errors


@pytest.mark.parametrize("command", ["train", "data"])
def test_a_damaged_cache_is_named_with_what_to_do(workspace, recipe, tmp_path, command) -> None:
    cache = (f"--data.cache={tmp_path}", "--data.normalization=imagenet")
    assert workspace.run("data", str(recipe), *cache).status == 0
    (pixels,) = tmp_path.glob("*/pixels.bin")
    with pixels.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 4]))
    options = SMALL if command == "train" else []
    answer = workspace.run(command, str(recipe), *options, *cache)
    assert answer.status == 1
    assert f"the cache file {pixels} is damaged" in answer.errors
    assert f"Delete the folder {pixels.parent}" in answer.errors
    assert "Traceback" not in answer.errors


def test_a_sweep_does_not_go_on_with_other_images(workspace, recipe, another_picture) -> None:
    sweep = ["sweep", str(recipe), *SMALL, "--sweep.confirm=null", "--study", "pictures"]
    answer = workspace.run(*sweep, "--trials", "1")
    assert answer.status == 0, answer.errors
    another_picture()
    more = workspace.run(*sweep, "--trials", "2")
    assert more.status == 2
    assert "the study 'pictures' searched on other images" in more.errors
    assert "--study NAME" in more.errors


def test_what_was_left_out_stands_in_the_look_at_the_data(darkroom, recipe, pictures) -> None:
    broken = pictures / "train" / "disc" / "empty.jpg"
    broken.write_bytes(b"")
    try:
        answer = darkroom("data", str(recipe), "--data.on_bad_image=skip")
    finally:
        broken.unlink()
    assert answer.status == 0, answer.errors
    assert "1 image left out as unreadable" in answer.output
    assert "holds no bytes" in answer.output


def test_a_file_that_is_gone_while_training_ends_the_run_with_its_name() -> None:
    with pytest.raises(RunError, match=r"^a\.jpg cannot be read"), recording(None):
        raise BadImageError("a.jpg cannot be read (No such file or directory)")


def test_broken_files_end_the_run_before_it_starts_with_all_of_them_listed(
    darkroom, recipe, pictures
) -> None:
    broken = [pictures / "train" / "disc" / name for name in ("empty.jpg", "words.jpg")]
    broken[0].write_bytes(b"")
    broken[1].write_text("no image")
    try:
        answer = darkroom("train", str(recipe), *SMALL)
        skipped = darkroom("train", str(recipe), *SMALL, "--data.on_bad_image=skip", "--mlflow.enabled=false")
    finally:
        for path in broken:
            path.unlink()
    assert answer.status == 2
    assert "2 of 152 files can't be read" in answer.errors
    assert "train/disc/empty.jpg" in answer.errors
    assert "train/disc/words.jpg" in answer.errors
    assert skipped.status == 0
    assert "2 of 152 files" in skipped.output


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("--data.root=nowhere", "data.root=nowhere is no folder"),
        ("--data.resize=squish", "resize"),
        ("--data.classes=[disc,square]", "triangle not among data.classes"),
        ("--data.fold=2", "data.fold=2 needs data.folds"),
        ("--data.normalization=backbone", "small_cnn has none"),
        ("--data.val_fractoin=0.2", "val_fraction"),
    ],
)
def test_a_mistake_is_one_paragraph(darkroom, recipe, key, named) -> None:
    answer = darkroom("train", str(recipe), *SMALL, key)
    assert answer.status == 2
    assert named in answer.errors
    assert "Traceback" not in answer.errors
