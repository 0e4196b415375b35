"""Records the store of this folder: run with the code of a commit before record version 2.

    git worktree add /tmp/before 787e510
    cd /tmp/before && python .../tests/experiments/store_of_version_1/make.py .../store.tar.xz

Three runs: `digits` and `pictures` have finished, `stopped` was interrupted after two epochs. The pictures
are JPEGs larger than what is trained on, in twelve classes named by numbers. Figures and logged models are
left out: they are large, and no command that goes on from a record reads them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = """
name: pictures/cnn
data:
  class_path: ImageFolder
  init_args:
    root: pictures
    cache: cache
    image_size: 16
    val_fraction: 0.25
    test_fraction: 0.25
    batch_size: 4
    augmentation: {resized_crop: [0.5, 1.0], horizontal_flip: 0.5}
model:
  class_path: ImageClassifier
  init_args:
    backbone: small_cnn
    backbone_options: {widths: [4]}
    optimizer: sgd
    lr: 0.1
    schedule: cosine
    warmup_epochs: 1
    class_weights: balanced
trainer: {max_epochs: 3, accumulate_batches: 4, precision: 32-true, progress: false}
mlflow: {system_metrics: false}
"""
DIGITS = ["--model.backbone_options.widths=[4]", "--trainer.max_epochs=2", "--mlflow.system_metrics=false"]


def draw_pictures(root: Path) -> None:
    """Writes six JPEGs of 96 x 80 pixels for each of the classes 0 to 11: noise around a color of its own."""
    random = np.random.default_rng(0)
    for label in range(12):
        folder = root / str(label)
        folder.mkdir(parents=True)
        color = random.integers(60, 196, 3)
        for number in range(6):
            pixels = (color + random.normal(0, 25, (80, 96, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=60)


def train(folder: Path, *arguments: str, stop_after: str | None = None) -> None:
    """Runs `darkroom train` there; interrupts it once it prints a line that begins with `stop_after`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", "-u", "-m", "experiments", "train", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="")
        if stop_after is not None and line.startswith(stop_after):
            process.send_signal(signal.SIGINT)
    assert process.wait() == (0 if stop_after is None else 130)


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        folder.mkdir()
        draw_pictures(folder / "pictures")
        (folder / "pictures.yaml").write_text(PICTURES)
        train(folder, "digits/cnn", "--mlflow.run_name=digits", *DIGITS)
        train(folder, "pictures.yaml", "--mlflow.run_name=pictures")
        longer = ["--trainer.max_epochs=8", "--trainer.progress=true", "--mlflow.run_name=stopped"]
        train(folder, "pictures.yaml", *longer, stop_after="epoch 2/8")
        for name in ("figures", "models", "model", "cache"):
            for found in folder.rglob(name):
                shutil.rmtree(found)
        (folder / "recorded_in").write_text(temporary)
        with tarfile.open(archive, "w:xz") as packed:
            packed.add(folder, "store")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
