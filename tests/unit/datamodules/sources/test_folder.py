"""Folders named after classes become splits as they stand, and what is amiss is named before training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from darkroom.datamodules import ImageFolder
from darkroom.datamodules.augmentation.pipeline import Augmentation

COUNTS = {"ant": 20, "bee": 20, "cat": 20}


def prepared(root: Path, **arguments: Any) -> ImageFolder:
    data = ImageFolder(str(root), **{"image_size": 16, "cache": str(root.parent / "cache"), **arguments})
    data.prepare_data()
    data.setup()
    return data


def test_classes_are_the_folders_sorted_and_every_image_is_in_one_split(write_folder) -> None:
    root = write_folder(COUNTS)
    data = prepared(root, val_fraction=0.2, test_fraction=0.2)
    assert data.class_names == ("ant", "bee", "cat")
    assert data.task == "multiclass"
    ids = [sample_id for store in data.splits.values() for sample_id in store.ids]
    on_disk = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    assert sorted(ids) == on_disk
    assert set(data.splits) == {"train", "val", "test"}
    for store in data.splits.values():
        assert [Path(name).parts[0] for name in store.ids] == [data.class_names[t] for t in store.targets]


def test_pixels_are_those_of_pillows_reading_resized(write_folder) -> None:
    root = write_folder(COUNTS)
    data = prepared(root, resize="squash", normalization="unit")
    store = data.splits["train"]
    for place in (0, 5, 11):
        picture = Image.open(root / store.ids[place]).resize((16, 16), Image.Resampling.BILINEAR)
        ours = store.images[torch.tensor([place])][0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(ours - np.asarray(picture).astype(int)).max() <= 2


def test_two_classes_are_a_binary_task(write_folder) -> None:
    assert prepared(write_folder({"cat": 12, "dog": 12})).task == "binary"


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_parts_that_are_there_are_kept_as_they_are(write_folder, validation: str) -> None:
    data = prepared(write_folder(COUNTS, ["train", validation, "test"]), val_fraction=0.5)
    assert {name: len(store) for name, store in data.splits.items()} == {"train": 60, "val": 60, "test": 60}
    assert all(name.startswith(validation) for name in data.splits["val"].ids)
    assert any("data.val_fraction is not used" in note for note in data.notes)


def test_without_test_images_that_is_said_and_a_fraction_draws_them(write_folder) -> None:
    root = write_folder(COUNTS, ["train", "val"])
    without = prepared(root)
    assert set(without.splits) == {"train", "val"}
    assert any("no test images" in note for note in without.notes)
    drawn = prepared(root, test_fraction=0.25)
    assert not any("no test images" in note for note in drawn.notes)
    assert set(drawn.splits["train"].ids) | set(drawn.splits["test"].ids) == set(without.splits["train"].ids)


def test_folds_share_out_training_and_validation_images(write_folder) -> None:
    root = write_folder(COUNTS, ["train", "val", "test"])
    judged = [prepared(root, folds=3, fold=fold).splits["val"].ids for fold in range(3)]
    everything = [name for ids in judged for name in ids]
    assert len(everything) == len(set(everything)) == 120
    assert not any(name.startswith("test") for name in everything)


def test_a_subset_leaves_validation_and_test_alone_and_is_part_of_a_larger_one(write_folder) -> None:
    root = write_folder(COUNTS)
    whole, half, tenth = (
        prepared(root, val_fraction=0.2, train_fraction=share) for share in (None, 0.5, 0.1)
    )
    assert half.splits["val"].ids == whole.splits["val"].ids
    ids = [set(data.splits["train"].ids) for data in (whole, half, tenth)]
    assert ids[2] < ids[1] < ids[0]
    few = prepared(root, train_per_class=4)
    assert few.class_counts("train") == [4, 4, 4]


def test_balanced_sampling_draws_a_rare_class_as_often(write_folder) -> None:
    data = prepared(write_folder({"common": 90, "rare": 10}), sampling="balanced", val_fraction=0.1)
    loader = data.train_dataloader()
    drawn = torch.cat([batch.targets for _ in range(20) for batch in loader]).double()
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)
    assert data.class_counts("train")[1] < 12


def test_bad_files_are_listed_together_with_their_reasons(write_folder) -> None:
    root = write_folder(COUNTS)
    (root / "ant" / "empty.jpg").write_bytes(b"")
    (root / "bee" / "text.jpg").write_text("no image")
    whole = (root / "cat" / "000.png").read_bytes()
    (root / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="3 of 63 files can't be read") as error:
        prepared(root)
    for name in ("ant/empty.jpg", "bee/text.jpg", "cat/cut.png", "data.on_bad_image=skip"):
        assert name in str(error.value)
    data = prepared(root, on_bad_image="skip")
    assert sum(map(len, data.splits.values())) == 60
    assert set(data.facts()["skipped"]) == {"ant/empty.jpg", "bee/text.jpg", "cat/cut.png"}


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_of_which_no_image_is_whole_is_not_skipped(write_folder, part) -> None:
    root = write_folder(COUNTS, ["train", "val"])
    for path in (root / part).rglob("*.png"):
        path.write_bytes(b"")
    named = rf"nothing of the source's own {part} images: none of 60 can be read(.|\n)*{part}/ant/000.png"
    with pytest.raises(ValueError, match=named) as error:
        prepared(root, on_bad_image="skip")
    assert str(error.value).endswith("and 40 more")


def test_names_that_are_not_utf8_are_named_before_anything_is_decoded(write_folder, tmp_path) -> None:
    root = write_folder(COUNTS)
    for number in range(7):
        odd = os.fsdecode(os.fsencode(root) + b"/ant/caf\xe9%d.png" % number)
        (root / "ant" / f"{number:03d}.png").rename(odd)
    with pytest.raises(ValueError, match=r"7 files have names not in UTF-8.*: ant/caf\\xe90") as error:
        prepared(root)
    assert "and 2 more" in str(error.value)
    assert "rename them" in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_a_note_on_a_file_that_is_no_image_can_be_printed(write_folder) -> None:
    root = write_folder(COUNTS)
    Path(os.fsdecode(os.fsencode(root) + b"/ant/notes.caf\xe9")).write_text("no image")
    (note,) = [note for note in prepared(root).notes if "no images by their names" in note]
    assert note.encode().endswith(b"1 .caf\\xe9")


def test_images_in_no_classs_folder_are_counted_by_place(write_folder, write_image) -> None:
    root = write_folder(COUNTS, ["train"])
    for number in range(5):
        write_image(root / "test" / f"{number}.png")
    write_image(root / "cover.png")
    data = prepared(root)
    assert {"train", "val"} == set(data.splits)
    assert "5 images lie in test/ itself, in no class's folder, and are left out" in data.notes
    assert f"1 image lies in data.root={root} itself, in no class's folder, and is left out" in data.notes
    (root / "train").rename(root.parent / "kept")
    (root / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train/class/image.jpg; .*5 images lie in test/ itself"):
        prepared(root)


def test_training_images_that_lie_in_no_classs_folder_are_missed(write_folder, write_image) -> None:
    root = write_folder(COUNTS, ["val"])
    write_image(root / "train" / "000.png")
    with pytest.raises(ValueError, match=r"some in train, found only 60 val; 1 image lies in train/ itself"):
        prepared(root)


def test_images_beside_the_classes_folders_are_counted(write_folder, write_image) -> None:
    root = write_folder(COUNTS)
    for number in range(2):
        write_image(root / f"{number}.png")
    data = prepared(root)
    assert sum(map(len, data.splits.values())) == 60
    assert any(note.startswith(f"2 images lie in data.root={root} itself") for note in data.notes)


def test_hidden_folders_are_not_read(write_folder, write_image) -> None:
    root = write_folder(COUNTS)
    write_image(root / "ant" / ".ipynb_checkpoints" / "000-checkpoint.png")
    write_image(root / ".thumbnails" / "000.png")
    data = prepared(root)
    assert sum(map(len, data.splits.values())) == 60


def test_a_file_of_another_format_than_its_suffix_says_is_read_and_pointed_out(write_folder) -> None:
    root = write_folder(COUNTS)
    (root / "ant" / "000.png").rename(root / "ant" / "000.jpg")
    data = prepared(root)
    assert sum(map(len, data.splits.values())) == 60
    assert any(note.startswith("1 files are read by their content: ant/000.jpg") for note in data.notes)


def test_grey_is_one_channel(write_folder) -> None:
    data = prepared(write_folder(COUNTS), grayscale=True)
    assert data.image_shape == (1, 16, 16)
    assert data.splits["train"].images[torch.arange(3)].shape == (3, 1, 16, 16)


def test_given_classes_set_the_order_and_need_no_files(write_folder, tmp_path) -> None:
    data = prepared(write_folder(COUNTS), classes=["cat", "ant", "bee"])
    assert data.class_names == ("cat", "ant", "bee")
    for name, target in zip(data.splits["train"].ids, data.splits["train"].targets.tolist(), strict=True):
        assert data.class_names[target] == Path(name).parts[0]
    absent = ImageFolder(str(tmp_path / "nowhere"), classes=["cat", "ant", "bee"])
    assert (absent.class_names, absent.image_shape) == (("cat", "ant", "bee"), (3, 224, 224))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda root: (root / "dove").mkdir(), "folders of classes without an image: dove"),
        (lambda root: (root / "train").mkdir(), "expected one for each class, or train"),
    ],
)
def test_a_layout_that_can_be_read_in_two_ways_is_refused(write_folder, make, named) -> None:
    root = write_folder(COUNTS)
    make(root)
    with pytest.raises(ValueError, match=named):
        prepared(root)


def test_a_class_that_only_validation_has_is_named(write_folder, write_image) -> None:
    root = write_folder(COUNTS, ["train", "val"])
    write_image(root / "val" / "Cat" / "000.png")
    with pytest.raises(ValueError, match="Cat"):
        prepared(root)


def test_what_is_not_there_is_said(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder"):
        prepared(tmp_path / "nowhere")
    (tmp_path / "empty" / "ant").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no image lies in"):
        prepared(tmp_path / "empty")


def test_classes_that_are_not_the_expected_ones_are_named(write_folder) -> None:
    with pytest.raises(ValueError, match=r"bee not among data.classes; no wasp"):
        prepared(write_folder(COUNTS), classes=["ant", "wasp", "cat"])


def test_a_class_that_is_expected_twice_is_named(write_folder) -> None:
    with pytest.raises(ValueError, match=r"data.classes names ant more than once"):
        prepared(write_folder(COUNTS), classes=["ant", "ant", "bee", "cat"])


def test_random_resized_crops_depend_on_seed_epoch_and_step_alone(write_folder) -> None:
    root = write_folder(COUNTS)

    arguments = {"augmentation": Augmentation(resized_crop=(0.3, 1.0)), "batch_size": 16}
    first, second = (prepared(root, **arguments).train_dataloader() for _ in range(2))
    epochs = [[batch.images for batch in first] for _ in range(2)]
    again = [batch.images for batch in second]
    assert all(torch.equal(one, other) for one, other in zip(epochs[0], again, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(epochs[0], epochs[1], strict=True))


def test_numbers_are_sorted_by_value_unless_torchvisions_order_is_asked_for(write_folder) -> None:
    root = write_folder({str(number): 3 for number in range(12)})
    by_value, as_text = (prepared(root, class_order=order) for order in ("natural", "text"))
    assert by_value.class_names == tuple(map(str, range(12)))
    assert list(as_text.class_names) == torchvision.datasets.ImageFolder(str(root)).classes
    for data in (by_value, as_text):
        for store in data.splits.values():
            assert [Path(name).parts[0] for name in store.ids] == [data.class_names[t] for t in store.targets]


def test_both_unicode_forms_of_a_name_are_one_class_and_case_alone_is_pointed_out(write_folder) -> None:
    data = prepared(write_folder({"caf\u00e9": 10, "cafe\u0301": 10, "Cat": 10, "cat": 10}))
    assert data.class_names == ("Cat", "caf\u00e9", "cat")
    assert sum(data.class_counts(split)[1] for split in data.splits) == 20
    assert any("classes Cat (10 images) and cat (10 images) differ in upper" in note for note in data.notes)
    expected = ["cat", "cafe\u0301", "Cat"]
    assert prepared(write_folder({}), classes=expected).class_names == ("cat", "caf\u00e9", "Cat")


def test_links_to_folders_are_followed_once_each_and_not_in_circles(write_folder, write_image) -> None:
    root = write_folder(COUNTS)
    elsewhere = root.parent / "elsewhere"
    write_image(elsewhere / "deep" / "far.png")
    (root / "ant" / "linked").symlink_to(elsewhere)
    followed = {
        str(Path(path).relative_to(root)) for path, _ in torchvision.datasets.ImageFolder(str(root)).imgs
    }
    (elsewhere / "deep" / "back").symlink_to(elsewhere)  # torchvision would not come back from these
    (root / "ant" / "again").symlink_to(root / "ant")
    (root / "bee" / "up").symlink_to(root)
    (elsewhere / "dangling").symlink_to(root / "nowhere")
    data = prepared(root)
    assert {name for store in data.splits.values() for name in store.ids} == followed
    assert "ant/linked/deep/far.png" in followed
    (note,) = [note for note in data.notes if note.startswith("links to folders")]
    assert note.endswith("not followed: ant/again, ant/linked/deep/back, bee/up")
