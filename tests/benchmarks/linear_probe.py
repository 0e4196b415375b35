"""A linear probe on features that are computed once, against one that computes them in each epoch.

From the prepared experiment to the chosen checkpoint's weights, in one run.

    python tests/benchmarks/linear_probe.py [--images 192] [--epochs 20] [--rounds 2] [--backbone resnet18]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench import arguments, figure, interleaved, ratios

from darkroom.experiments.config.experiment import parse_experiment
from darkroom.experiments.runtime.startup import keep_memory
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare

RECIPE = """
name: synthetic/probe
data:
  class_path: Synthetic
  init_args: {batch_size: 32, val_fraction: 0.25}
model:
  class_path: ImageClassifier
  init_args: {finetuning: {strategy: linear_probe}}
trainer: {early_stopping: null, progress: false}
mlflow: {enabled: false}
"""


def train_probe(given: argparse.Namespace, cached: bool) -> float:
    overrides = {
        "data.num_images": str(given.images * 4 // 3),  # a quarter is for validation
        "data.image_size": str(given.image_size),
        "model.backbone": given.backbone,
        "model.finetuning.cache_features": str(cached).lower(),
        "trainer.max_epochs": str(given.epochs),
    }
    experiment = parse_experiment([RECIPE], overrides)
    prepare(experiment)
    with tempfile.TemporaryDirectory() as folder:
        started_at = time.perf_counter()
        fit(experiment, EpochRecorder(None, experiment.trainer.monitor), Path(folder))
        return time.perf_counter() - started_at


def main() -> None:
    given = arguments(
        __doc__,
        rounds=2,
        images=(192, 24),
        epochs=(20, 2),
        backbone=("resnet18", "small_cnn"),
        image_size=(224, 32),
    )
    taken = interleaved(
        given.rounds,
        {"once": lambda: train_probe(given, True), "each_epoch": lambda: train_probe(given, False)},
    )
    what = f"features of {given.backbone} in each of {given.epochs} epochs, {given.images} images"
    figure("linear_probe/cached", ratios(taken, "each_epoch", "once"), "s", what, "features computed once")


if __name__ == "__main__":
    keep_memory()
    main()
