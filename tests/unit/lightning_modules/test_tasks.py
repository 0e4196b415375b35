"""Multi-label tasks and mixing in a real fit: what is learned, reported, resumed and shared out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn import metrics as sk
from support.classifiers import built, prepared, trainer
from support.datasets import LabelledBars
from support.processes import on_two_processes

from darkroom.datamodules import ImageDataModule
from darkroom.datamodules.loader import Batch
from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.predictor import Predictor
from darkroom.lightning_modules.task import build_task

MIXED = {"mixup": 0.4, "cutmix": 1.0}


def labelled(**arguments: Any) -> LabelledBars:
    data = LabelledBars(**arguments)
    data.setup()
    return data


def built_for_labels(data: LabelledBars, seed: int = 0, **arguments: Any) -> ImageClassifier:
    torch.manual_seed(seed)
    options = {"backbone": "small_cnn", "backbone_options": {"widths": [8, 16]}, "lr": 0.01}
    model = ImageClassifier(**{**options, **arguments})
    model.build(len(data.class_names), data.image_shape, data.task)
    model.weigh_classes(data.class_counts(), data.num_train_images)
    return model


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_labels_are_learned_and_metrics_are_those_of_the_predictions(class_weights: str) -> None:
    data = labelled()
    model = built_for_labels(data, class_weights=class_weights)
    fitted = trainer(max_epochs=12)
    fitted.fit(model, data)
    (tested,) = fitted.test(model, data, verbose=False)
    predictions = model.predictions["test"]
    test = data.splits["test"]
    assert torch.equal(predictions.targets, test.targets)
    with torch.no_grad():
        logits = model.network.eval()(data.preprocess(test.images))
    torch.testing.assert_close(predictions.probabilities, logits.sigmoid())
    truth, scores = predictions.targets.numpy(), predictions.probabilities.numpy()
    expected = {
        "average_precision": sk.average_precision_score(truth, scores),
        "f1_macro": sk.f1_score(truth, scores > 0.5, average="macro"),
    }
    for name, value in expected.items():
        assert tested[f"test/{name}"] == pytest.approx(value, abs=1e-5), name
    assert tested["test/average_precision"] > 0.9
    assert {name.removeprefix("test/") for name in tested} == set(model.task.metric_names)
    if class_weights == "none":
        assert tested["test/loss"] == pytest.approx(tested["test/log_loss"], rel=1e-4)


def test_a_checkpoint_knows_its_task_and_one_of_before_is_taken_for_what_it_was(tmp_path: Path) -> None:
    data = labelled()
    model = built_for_labels(data, class_weights="balanced")
    fitted = trainer()
    fitted.fit(model, data)
    fitted.save_checkpoint(tmp_path / "model.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.task == model.task == build_task(3, "multilabel")
    images = data.preprocess(data.splits["test"].images)
    assert torch.equal(loaded.eval()(images), model.eval()(images))

    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    del checkpoint["built_for"]["task"]
    torch.save(checkpoint, tmp_path / "older.ckpt")
    older = ImageClassifier.load_from_checkpoint(tmp_path / "older.ckpt", weights_only=True)
    assert older.task == build_task(3, "multiclass")


def test_the_predictor_gives_a_sigmoid_for_each_label() -> None:
    data = labelled()
    model = built_for_labels(data).eval()
    images = data.splits["test"].images
    predictor = Predictor(data.preprocess, model.network, model.task.probabilities)
    logits = model.network(data.preprocess(images)).detach().double().numpy()
    np.testing.assert_allclose(predictor(images).detach().numpy(), 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.parametrize(
    ("num_classes", "name", "num_outputs", "resolved"),
    [(2, None, 1, "binary"), (3, None, 3, "multiclass"), (2, "multilabel", 2, "multilabel")],
)
def test_a_task_follows_from_its_name_or_the_number_of_classes(
    num_classes: int, name: Any, num_outputs: int, resolved: str
) -> None:
    task = build_task(num_classes, name)
    assert (task.num_outputs, task.name) == (num_outputs, resolved)


@pytest.mark.parametrize(("num_classes", "name"), [(1, None), (1, "multilabel"), (3, "binary")])
def test_a_task_that_its_classes_do_not_fit_is_refused(num_classes: int, name: Any) -> None:
    with pytest.raises(ValueError, match=f"the data has {num_classes}"):
        build_task(num_classes, name)


# Mixing -----------------------------------------------------------------------------------------

SOURCES: list[Any] = [
    pytest.param(lambda: prepared(2), built, id="binary"),
    pytest.param(lambda: prepared(3), built, id="multiclass"),
    pytest.param(labelled, built_for_labels, id="multilabel"),
]


@pytest.mark.parametrize(("source", "build"), SOURCES)
def test_it_learns_from_mixed_images(
    source: Callable[[], ImageDataModule], build: Callable[..., ImageClassifier]
) -> None:
    data = source()
    model = build(data, **MIXED, label_smoothing=0.05)
    fitted = trainer(max_epochs=15)
    fitted.fit(model, data)
    assert fitted.callback_metrics["val/accuracy"] > 0.85
    seen = model.predictions["train"]  # mixed images, judged by what they were before
    assert torch.equal(seen.targets, data.splits["train"].targets[seen.indices])


def test_dropout_and_augmentation_draw_the_same_with_mixing_as_without() -> None:
    data = prepared()
    draws = []
    for options in ({}, MIXED):
        model = built(data, backbone="dense", backbone_options={"hidden_sizes": [64]}, dropout=0.5, **options)
        model.on_train_epoch_start()
        images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        model.training_step(Batch(images, torch.arange(16) % 3, torch.arange(16), 5), 1)
        draws.append(torch.get_rng_state())
    assert torch.equal(*draws)


@pytest.mark.parametrize(("source", "build"), SOURCES)
def test_a_resumed_run_that_mixes_ends_with_the_same_bits(
    source: Callable[[], ImageDataModule], build: Callable[..., ImageClassifier], tmp_path: Path
) -> None:
    options: dict[str, Any] = {**MIXED, "dropout": 0.3}
    data = source()
    whole = build(data, **options)
    in_mid_epoch = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6, save_top_k=-1)
    trainer(max_epochs=3, callbacks=[in_mid_epoch], enable_checkpointing=True).fit(whole, data)
    data = source()
    resumed = build(data, seed=77, **options)
    trainer(max_epochs=3).fit(resumed, data, ckpt_path=tmp_path / "step=6.ckpt", weights_only=True)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


def test_validation_is_never_mixed() -> None:
    data = labelled()
    plain, mixing = (built_for_labels(data, **options) for options in ({}, MIXED))
    results = [trainer().validate(model, data, verbose=False)[0] for model in (plain, mixing)]
    assert results[0] == results[1]


# Shares of several processes --------------------------------------------------------------------


def loss_of_a_share(rank: int) -> dict[str, float]:
    """This process's loss of a global batch of 9 images, of which the last share is the smaller."""
    everything = torch.arange(9)
    mine = everything[rank::2]
    images = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    found = {}
    for name, options in (("plain", {}), ("mixed", MIXED)):
        for task, targets in (
            ("multilabel", (torch.rand(9, 3, generator=torch.Generator().manual_seed(5)) < 0.5).float()),
            ("multiclass", everything % 3),
        ):
            torch.manual_seed(0)
            model = ImageClassifier(backbone="dense", class_weights="balanced", **options)
            model.build(3, (1, 8, 8), task)  # type: ignore[arg-type]
            model.weigh_classes([5, 3, 1], 9)
            model.on_train_epoch_start()
            batch = Batch(images[mine], targets[mine], mine, 10 + rank, targets)
            found[f"{name} {task}"] = float(model._step("train", batch)[0])
            mixed, soft, _ = model._mixed(batch)
            found[f"{name} {task} alone"] = float(model.criterion(model(mixed), soft))
            empty = Batch(images[:1], targets[:0], mine[:0], 10 + rank, targets)
            found[f"{name} {task} empty"] = float(model._step("train", empty)[0])
    return found


def test_the_mean_over_processes_is_the_loss_of_the_global_batch(tmp_path: Path) -> None:
    first, second = on_two_processes(loss_of_a_share, tmp_path)
    for key in ("plain multilabel", "mixed multilabel", "mixed multiclass"):
        # Each image counts the same, wherever it is: shares of 5 and 4.
        expected = (5 * first[f"{key} alone"] + 4 * second[f"{key} alone"]) / 9
        assert (first[key] + second[key]) / 2 == pytest.approx(expected, rel=1e-5)
    for found in (first, second):
        assert all(value == 0 for key, value in found.items() if key.endswith("empty"))
