"""A linear probe on features that are computed once, against one that computes them in each epoch.

From the prepared experiment to the chosen checkpoint's weights, in one run; prints the ratio of times.

    python tests/benchmarks/linear_probe.py [--images 192] [--epochs 20] [--rounds 2] [--backbone resnet18]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from experiments.callbacks import EpochRecorder
from experiments.config import parse_experiment
from experiments.startup import keep_memory
from experiments.train import fit, prepare

RECIPE = """
name: synthetic/probe
data:
  class_path: Synthetic
  init_args: {image_size: 224, batch_size: 32, val_fraction: 0.25}
model:
  class_path: ImageClassifier
  init_args: {finetuning: {strategy: linear_probe}}
trainer: {early_stopping: null, progress: false}
mlflow: {enabled: false}
"""


def seconds(arguments: argparse.Namespace, cached: bool) -> float:
    overrides = {
        "data.num_images": str(arguments.images * 4 // 3),  # a quarter is for validation
        "model.backbone": arguments.backbone,
        "model.finetuning.cache_features": str(cached).lower(),
        "trainer.max_epochs": str(arguments.epochs),
    }
    experiment = parse_experiment([RECIPE], overrides)
    prepare(experiment)
    with tempfile.TemporaryDirectory() as folder:
        started_at = time.perf_counter()
        fit(experiment, EpochRecorder(None, experiment.trainer.monitor), Path(folder))
        return time.perf_counter() - started_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--backbone", default="resnet18")
    arguments = parser.parse_args()
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(arguments.rounds):
        for cached, taken in times.items():
            taken.append(seconds(arguments, cached))
    once, each = (statistics.median(times[cached]) for cached in (True, False))
    print(f"{arguments.backbone}, {arguments.images} images of 224, {arguments.epochs} epochs")
    print(f"features once {once:.2f} s, in each epoch {each:.2f} s: {each / once:.1f} times faster")


if __name__ == "__main__":
    keep_memory()
    main()
