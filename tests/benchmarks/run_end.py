"""The end of a run: seconds from the last epoch to the result, for 10,000 test images of 28x28.

Test metrics, figures, tables, predictions and the logged model, as a share of what the same takes
when MLflow is left to infer the model's requirements.

    python tests/benchmarks/run_end.py [--rounds 3]
"""

from __future__ import annotations

import time
from pathlib import Path

import mlflow
from bench import arguments, figure, interleaved, ratios, workplace, write_idx

from darkroom.experiments.config.experiment import Experiment, load_experiment
from darkroom.experiments.tracking.run_lifecycle import working_folder
from darkroom.experiments.tracking.store import open_store
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.run import conclude, fit, start_record
from darkroom.experiments.training.setup import prepare
from darkroom.lightning_modules.predictor import Predictor


def load(root: Path) -> Experiment:
    keys = {
        "data.root": str(root),
        "trainer.max_epochs": "1",
        "trainer.progress": "false",
        "trainer.extra": "{limit_train_batches: 20}",
    }
    experiment = load_experiment(["fashion_mnist/cnn"], keys)
    prepare(experiment)
    return experiment


def whole_end(root: Path) -> float:
    """Seconds from the last epoch on."""
    experiment = load(root)
    record = start_record(experiment, open_store())
    assert record is not None
    with working_folder(record) as folder:
        recorder = EpochRecorder(record, experiment.trainer.monitor)
        best_epoch = fit(experiment, recorder, folder)
        started_at = time.perf_counter()
        conclude(experiment, recorder, best_epoch, folder)
        taken = time.perf_counter() - started_at
    record.end("FINISHED")
    return taken


def inferring(root: Path, inferred: bool) -> float:
    """Seconds of MLflow's log_model alone."""
    experiment = load(root)
    model = Predictor(experiment.data.preprocess, experiment.model.network).eval()
    example = experiment.data.splits["test"].images[:2].numpy()
    requirements = None if inferred else ["torch"]
    started_at = time.perf_counter()
    with mlflow.start_run():
        mlflow.pytorch.log_model(model, name="model", input_example=example, pip_requirements=requirements)
    return time.perf_counter() - started_at


def main() -> None:
    given = arguments(__doc__, rounds=3, test_images=(10_000, 60))
    with workplace() as root:
        write_idx(root, 2000 if not given.tiny else 120, given.test_images)
        taken = interleaved(
            given.rounds,
            # A tiny run infers nothing, which would take MLflow a process and ten seconds.
            {"end": lambda: whole_end(root), "log_model": lambda: inferring(root, not given.tiny)},
        )
    figure("run_end/whole", taken["end"], "s", f"the end of a run, {given.test_images} test images", "1 s")
    against = "MLflow's log_model alone, inferring requirements"
    figure("run_end/ratio", ratios(taken, "end", "log_model"), "s", "the end of a run", against)


if __name__ == "__main__":
    main()
