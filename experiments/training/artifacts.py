"""Writes a run's artifacts: configuration, data, figures, model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.images.store import ImageStore
from darkroom.lightning_modules.classifier import ImageClassifier
from darkroom.lightning_modules.metrics.epoch_outputs import Predictions
from darkroom.lightning_modules.predictor import Predictor

from ..config.experiment import Experiment, derived_values
from ..config.keys import flatten
from ..evaluation.calibration import Calibration
from ..evaluation.predictions import (
    confusion_counts,
    group_column,
    label_confusion_counts,
    target_columns,
    target_names,
)
from ..tracking.provenance import (
    code_git_state,
    code_sources,
    hardware,
    packages,
    source_digest,
    workspace_git_state,
)
from ..tracking.run import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_PARAMS = ("sweep", "claim")  # they say nothing about this run, and stand in config.yaml


def record_start(run: RunRecord, experiment: Experiment) -> None:
    """Everything known before the first step: configuration, data, environment, first pictures."""
    data, model = experiment.data, experiment.model
    config = experiment.settled_config()
    configured = {key: value for key, value in config.items() if key not in NOT_PARAMS}
    run.log_params(flatten(configured) | derived_values(experiment))
    with run.artifacts() as folder:
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        record_conditions(run, folder, data)
        (folder / "network.txt").write_text(f"{model.network}\n")


def record_conditions(run: RunRecord, folder: Path, data: ImageDataModule) -> None:
    """Data, code, packages and hardware: what a number depends on besides its configuration."""
    code, workspace = code_git_state(), workspace_git_state()
    tags = {"source_digest": source_digest(code_sources())}
    for name, git in (("git", code), ("workspace", workspace)):
        if git is not None:
            tags |= {f"{name}_commit": git["commit"], f"{name}_dirty": str(bool(git["status"])).lower()}
    run.set_tags(tags)
    _write_data(folder / "data", data)
    _write_environment(folder / "environment", code, workspace)


def record_figures(
    folder: Path,
    data: ImageDataModule,
    split: str,
    predictions: Predictions,
    curves: Mapping[str, list[tuple[int, float]]],
    best_epoch: int | None,
    thresholds: Sequence[float] | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Draws a run's figures, from the predictions of one split and the history of training, if it has one."""
    from ..reporting import (
        calibration_plots,
        image_grids,  # matplotlib is not needed before the end
        plots,
    )
    from ..reporting.style import save

    probabilities = predictions.probabilities.cpu().numpy()
    targets, ranking = predictions.targets.cpu().numpy(), predictions.ranking.cpu().numpy()
    names = list(data.class_names)
    judged, train = data.splits[split], data.splits["train"]
    pictures = LazyImages(judged, predictions.indices.cpu())
    ids = [judged.ids[index] for index in predictions.indices.tolist()]
    original = _to_bytes(data.preprocess.scale(train.images[torch.tensor([0])]))[0]
    augmented = _to_bytes(data.augmented(0, 24))
    first = target_names(train.targets[0], names)
    drawn: dict[str, Figure] = {
        "roc_curves": plots.roc_curves(targets, ranking, names),
        "precision_recall_curves": plots.precision_recall_curves(targets, ranking, names),
        "reliability": calibration_plots.reliability_diagram(
            targets, probabilities, calibration.scaled if calibration is not None else None
        ),
        "risk_coverage": calibration_plots.risk_coverage_curve(targets, probabilities, ranking),
        "samples": image_grids.sample_sheet(LazyImages(train), train.targets.numpy(), names),
        "augmented": image_grids.augmented_sheet(original, augmented, first),
    }
    if thresholds is None:
        counts = confusion_counts(targets, probabilities.argmax(1), len(names))
        drawn |= {
            "confusion_matrix": plots.confusion_matrix(counts, names),
            "worst_mistakes": image_grids.worst_mistakes(pictures, targets, probabilities, names, ids=ids),
        }
    else:
        counts = label_confusion_counts(targets, probabilities > thresholds)
        drawn |= {
            "confusion_matrices": plots.label_confusion_matrices(counts, names, thresholds),
            "worst_mistakes": image_grids.worst_label_mistakes(
                pictures, targets, probabilities, names, thresholds, ids=ids
            ),
        }
    if curves:
        headline = "accuracy" if thresholds is None else "average_precision"
        drawn["learning_curves"] = plots.learning_curves(curves, best_epoch, headline)
    (folder / "figures").mkdir()
    for name, figure in drawn.items():
        save(figure, folder / "figures" / f"{name}.png")


class LazyImages:
    """Images of a store by their places, read only when they are drawn: uint8 (n, C, H, W).

    Args:
        store: The images.
        order: Which of them stand at the places, (N,); all in order where None.
    """

    def __init__(self, store: ImageStore, order: Tensor | None = None) -> None:
        self._store = store
        self._order = torch.arange(len(store)) if order is None else order
        self.shape = (len(self._order), *store.images.shape[1:])

    def __getitem__(self, places: NDArray[np.integer]) -> NDArray[np.uint8]:
        return self._store.images[self._order[torch.from_numpy(places)]].numpy()


def _to_bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """Float pixels in [0, 1] to uint8, for pictures."""
    return pixels.mul(255).round().clamp(0, 255).byte().numpy()


def record_model(
    run: RunRecord, data: ImageDataModule, model: ImageClassifier, thresholds: Sequence[float] | None = None
) -> None:
    """Logs the network with the evaluation transform before it and probabilities behind it."""
    record_predictor(run, data, build_predictor(data, model), thresholds)


def build_predictor(data: ImageDataModule, model: ImageClassifier) -> Predictor:
    """What the run leaves behind: a copy of its network, from uint8 images to probabilities."""
    # In the one memory layout that the traced graph stores without a doubt.
    network = copy.deepcopy(model.network)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return Predictor(data.preprocess, network, model.task.probabilities).cpu().eval()


def record_predictor(
    run: RunRecord, data: ImageDataModule, predictor: nn.Module, thresholds: Sequence[float] | None = None
) -> None:
    """Logs a module from uint8 images (N, C, H, W) to probabilities, with what its users need to know."""
    # A single one would fix the batch size at 1.
    example = data.splits["train"].images[torch.arange(2)].numpy()
    metadata: dict[str, object] = {"task": data.task, "class_names": list(data.class_names)}
    if thresholds is not None:
        metadata["thresholds"] = list(thresholds)
    run.log_model(predictor, data.source_shape, example, metadata)


def _write_data(folder: Path, data: ImageDataModule) -> None:
    folder.mkdir()
    (folder / "facts.json").write_text(json.dumps(data.facts(), indent=2))
    frames = [
        pd.DataFrame(
            {
                "id": list(store.ids),
                **group_column(store.groups),
                **target_columns(store.targets.numpy()),
                "split": name,
            }
        )
        for name, store in data.splits.items()
    ]
    pd.concat(frames).to_parquet(folder / "split.parquet")
    if data.sample_weights is not None:
        weights = pd.DataFrame({"id": list(data.splits["train"].ids), "weight": data.sample_weights.numpy()})
        weights.drop_duplicates("id").to_parquet(folder / "sample_weights.parquet")


def _write_environment(
    folder: Path, code: Mapping[str, str] | None, workspace: Mapping[str, str] | None
) -> None:
    folder.mkdir()
    (folder / "packages.txt").write_text(packages())
    (folder / "hardware.json").write_text(json.dumps(hardware(), indent=2))
    (folder / "sources.txt").write_text(code_sources())
    for git, name, diff in (
        (code, "git.json", "uncommitted.diff"),
        (workspace, "workspace_git.json", "workspace_uncommitted.diff"),
    ):
        if git is not None:
            (folder / name).write_text(json.dumps({key: git[key] for key in ("commit", "status")}, indent=2))
            (folder / diff).write_text(git["diff"])
