"""What a run leaves behind: parameters, data, environment, predictions, tables, figures, model."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules import ImageDataModule
from experiments.config import Experiment, flatten
from experiments.provenance import git_state, hardware, packages
from experiments.tracking import RunRecord
from lightning_modules import ImageClassifier
from lightning_modules.outputs import Predictions
from lightning_modules.predictor import Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_OF_EACH_CLASS = 8  # on the sheet of samples
NOT_PARAMS = ("sweep", "claim")  # they say nothing about this run, and stand in config.yaml


def record_start(run: RunRecord, experiment: Experiment) -> None:
    """Everything known before the first step: configuration, data, environment, first pictures."""
    data, model = experiment.data, experiment.model
    configured = {key: value for key, value in experiment.config.items() if key not in NOT_PARAMS}
    run.log_params(flatten(configured) | derived_values(experiment))
    git = git_state()
    if git is not None:
        run.set_tags({"git_commit": git["commit"], "git_dirty": str(bool(git["status"])).lower()})
    with run.artifacts() as folder:
        (folder / "config.yaml").write_text(experiment.to_yaml())
        _write_data(folder / "data", data)
        _write_environment(folder / "environment", git)
        (folder / "network.txt").write_text(f"{model.network}\n")


def derived_values(experiment: Experiment) -> dict[str, object]:
    """What follows from data and configuration together."""
    data, model = experiment.data, experiment.model
    values: dict[str, object] = {
        "task": data.task,
        "num_classes": len(data.class_names),
        "image_shape": "x".join(map(str, data.image_shape)),
        "num_parameters": model.num_parameters(),
    }
    with contextlib.suppress(FileNotFoundError):  # some sources know nothing without their files
        steps = -(-data.num_train_images // data.batch_size)
        values["num_train_images"] = data.num_train_images
        values["steps_per_epoch"] = -(-steps // experiment.trainer.accumulate_batches)
    return values


def record_predictions(folder: Path, split: str, predictions: Predictions, data: ImageDataModule) -> None:
    """Writes predictions, and the tables that follow from them, of one split."""
    ids = [data.splits[split].ids[index] for index in predictions.indices.tolist()]
    probabilities = predictions.probabilities.cpu().numpy()
    targets = predictions.targets.cpu().numpy()
    (folder / "predictions").mkdir(exist_ok=True)
    prediction_frame(ids, targets, probabilities).to_parquet(folder / "predictions" / f"{split}.parquet")
    counts = confusion_counts(targets, probabilities.argmax(1), len(data.class_names))
    (folder / "tables").mkdir(exist_ok=True)
    names = pd.Index(data.class_names, name="true")
    pd.DataFrame(counts, index=names, columns=list(data.class_names)).to_csv(
        folder / "tables" / f"{split}_confusion_matrix.csv"
    )
    per_class_table(counts, data.class_names).to_csv(
        folder / "tables" / f"{split}_per_class.csv", index=False
    )


def prediction_frame(
    ids: list[str], targets: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> pd.DataFrame:
    """The prediction store: `id`, `target`, and `prob_0` ... of which a binary task keeps `prob_1` alone."""
    num_classes = probabilities.shape[1]
    kept = [1] if num_classes == 2 else range(num_classes)
    columns = {f"prob_{label}": probabilities[:, label] for label in kept}
    return pd.DataFrame({"id": ids, "target": targets, **columns})


def confusion_counts(
    targets: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Counts (C, C), rows the true class, columns the predicted one.

    >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    cells = targets * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def per_class_table(counts: NDArray[np.int64], class_names: tuple[str, ...]) -> pd.DataFrame:
    """Precision, recall, F1 and support of each class, from a confusion matrix; 0 where undefined."""
    hits, support, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    return pd.DataFrame(
        {
            "class": class_names,
            "precision": hits / np.maximum(predicted, 1),
            "recall": hits / np.maximum(support, 1),
            "f1": 2 * hits / np.maximum(support + predicted, 1),
            "support": support,
        }
    )


def record_figures(
    folder: Path,
    data: ImageDataModule,
    split: str,
    predictions: Predictions,
    curves: dict[str, list[tuple[int, float]]],
    best_epoch: int,
) -> None:
    """Draws a run's figures, from the predictions of one split and the history of training."""
    from experiments import figures  # matplotlib is not needed before the end

    probabilities = predictions.probabilities.cpu().numpy()
    targets = predictions.targets.cpu().numpy()
    names = list(data.class_names)
    judged = data.splits[split]
    images = judged.images[predictions.indices.cpu()].numpy()
    ids = [judged.ids[index] for index in predictions.indices.tolist()]
    counts = confusion_counts(targets, probabilities.argmax(1), len(names))
    train = data.splits["train"]
    shown = first_of_each_class(train.targets, len(names))
    original = _to_bytes(data.preprocess.scale(train.images[torch.tensor([0])]))[0]
    augmented = _to_bytes(data.augmented(0, 24))
    drawn: dict[str, Figure] = {
        "learning_curves": figures.learning_curves(curves, best_epoch),
        "confusion_matrix": figures.confusion_matrix(counts, names),
        "roc_curves": figures.roc_curves(targets, probabilities, names),
        "precision_recall_curves": figures.precision_recall_curves(targets, probabilities, names),
        "reliability": figures.reliability_diagram(targets, probabilities),
        "worst_mistakes": figures.worst_mistakes(images, targets, probabilities, names, ids=ids),
        "samples": figures.sample_sheet(train.images[shown].numpy(), train.targets[shown].numpy(), names),
        "augmented": figures.augmented_sheet(original, augmented, names[int(train.targets[0])]),
    }
    (folder / "figures").mkdir()
    for name, figure in drawn.items():
        figures.save(figure, folder / "figures" / f"{name}.png")


def first_of_each_class(targets: Tensor, num_classes: int, count: int = SHOWN_OF_EACH_CLASS) -> Tensor:
    """Places of the first samples of each class, or with each label, in order.

    >>> first_of_each_class(torch.tensor([0, 0, 1, 0]), 2, count=2).tolist()
    [0, 1, 2]
    """
    columns = targets > 0 if targets.ndim == 2 else targets[:, None] == torch.arange(num_classes)  # (N, C)
    return (columns & (columns.cumsum(0) <= count)).any(1).nonzero().flatten()


def _to_bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """Float pixels in [0, 1] to uint8, for pictures."""
    return pixels.mul(255).round().clamp(0, 255).byte().numpy()


def record_model(run: RunRecord, data: ImageDataModule, model: ImageClassifier) -> None:
    """Logs the network with the evaluation transform before it and probabilities behind it."""
    # A copy, in the one memory layout that the traced graph stores without a doubt.
    network = copy.deepcopy(model.network)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    predictor = Predictor(data.preprocess, network).cpu().eval()
    example = (
        data.splits["train"].images[torch.arange(2)].numpy()
    )  # a single one would fix the batch size at 1
    run.log_model(predictor, data.source_shape, data.class_names, example)


def _write_data(folder: Path, data: ImageDataModule) -> None:
    folder.mkdir()
    (folder / "facts.json").write_text(json.dumps(data.facts(), indent=2))
    frames = [
        pd.DataFrame({"id": list(store.ids), "target": store.targets.numpy(), "split": name})
        for name, store in data.splits.items()
    ]
    pd.concat(frames).to_parquet(folder / "split.parquet")


def _write_environment(folder: Path, git: dict[str, str] | None) -> None:
    folder.mkdir()
    (folder / "packages.txt").write_text(packages())
    (folder / "hardware.json").write_text(json.dumps(hardware(), indent=2))
    if git is not None:
        (folder / "git.json").write_text(
            json.dumps({key: git[key] for key in ("commit", "status")}, indent=2)
        )
        (folder / "uncommitted.diff").write_text(git["diff"])
