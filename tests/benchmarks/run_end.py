"""The end of a run: seconds from the last epoch to the result, for 10,000 test images of 28x28.

Test metrics, figures, tables, predictions and the logged model, as a share of what the same takes
when MLflow is left to infer the model's requirements.

    python tests/benchmarks/run_end.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import mlflow

from experiments.callbacks import EpochRecorder, ProgressLine
from experiments.config import load_experiment
from experiments.ending import working_folder
from experiments.tracking import open_store
from experiments.train import conclude, fit, prepare, start_record
from lightning_modules.predictor import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data_root = Path(os.environ.get("DARKROOM_DATA", "data")).resolve() / "fashion_mnist"
    ours, inferred = [], []
    with tempfile.TemporaryDirectory() as name:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(name) / 'mlflow.db'}"
        os.chdir(name)
        for _ in range(arguments.rounds):
            experiment = load_experiment(
                ["fashion_mnist/cnn"],
                {
                    "data.root": str(data_root),
                    "trainer.max_epochs": "1",
                    "trainer.extra": "{limit_train_batches: 20}",
                },
            )
            prepare(experiment)
            record = start_record(experiment, open_store())
            assert record is not None
            with working_folder(record) as folder:
                recorder = EpochRecorder(record, experiment.trainer.monitor)
                best_epoch = fit(experiment, recorder, folder, callbacks=[ProgressLine()])
                started_at = time.perf_counter()
                conclude(experiment, recorder, best_epoch, folder)
                ours.append(time.perf_counter() - started_at)
            record.end("FINISHED")
            model = Predictor(experiment.data.preprocess, experiment.model.network).eval()
            example = experiment.data.splits["test"].images[:2].numpy()
            started_at = time.perf_counter()
            with mlflow.start_run():
                mlflow.pytorch.log_model(model, name="model", input_example=example)
            inferred.append(time.perf_counter() - started_at)
    end, alone = statistics.median(ours), statistics.median(inferred)
    print(f"the whole end of a run: {end:.1f} s (first, with its imports: {ours[0]:.1f} s)")
    print(f"log_model alone, requirements inferred: {alone:.1f} s")
    print(f"ratio {end / alone:.2f}")


if __name__ == "__main__":
    main()
