"""A sweep's costs: against a fresh process a trial, against bare ask and tell, with and without pruning.

    python tests/benchmarks/sweep.py [trials start conductor pruning]

- trials: one-epoch trials on 2,000 images with their record, against a fresh process for each.
- start: from the request for a trial's process to its first step, and to its report after validation.
- conductor: what it adds to bare ask and tell over many trials that end at once, and its memory.
- pruning: epochs saved on digits/cnn, and the best value with and without.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SEARCH = """
import json, sys
from experiments.sweep.worker import start_server
recipe, trials, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start_server(json.dumps([[recipe], {}]))
from experiments.config import load_experiment
from experiments.sweep import sweep as room
from experiments.sweep.storage import open_leases, open_storage
from experiments.sweep.study import open_study
from experiments.tracking import open_store
experiment = load_experiment([recipe], {}, check_space=True)
slots = room.share_out(experiment, workers, 1)
room.prepare_sweep(experiment, [recipe], {})
store, storage = open_store(), open_storage("sqlite:///optuna.db")
study = open_study(experiment, experiment.name, storage)
parent = room.parent_run(experiment, study, store)
shared = room.Sweep(experiment.name, [recipe], {}, experiment.sweep, 0, 1, store, parent)
room.search(shared, study, open_leases(storage, experiment.name), slots, trials)
"""

FRESH = """
import sys
from experiments.callbacks import EpochRecorder
from experiments.config import load_experiment
from experiments.record import record_predictions
from experiments.tracking import open_store
from experiments.ending import working_folder
from experiments.train import chosen_epoch, fit, prepare, start_record
experiment = load_experiment([sys.argv[1]], {"model.lr": sys.argv[2], "trainer.progress": "false"})
prepare(experiment)
record = start_record(experiment, open_store())
with working_folder(record) as folder:
    recorder = EpochRecorder(record, experiment.trainer.monitor)
    best = fit(experiment, recorder, folder)
    record.log_metrics(chosen_epoch(experiment, recorder, best), step=best)
    with record.artifacts() as artifacts:
        record_predictions(artifacts, "val", experiment.model.predictions["val"], experiment.data)
record.end("FINISHED")
"""

RECIPE = """
name: fashion_mnist/benchmark
data: {class_path: FashionMNIST, init_args: {root: ROOT, batch_size: 128}}
model: {class_path: ImageClassifier, init_args: {backbone: small_cnn, backbone_options: {widths: [16, 32]}}}
trainer: {max_epochs: 1, early_stopping: null}
sweep: {pruner: none, sampler: random, space: {model.lr: {low: 1.0e-4, high: 1.0e-1, log: true}}}
"""


def benchmark_trials(folder: Path, counts: tuple[int, ...] = (16, 64)) -> None:
    from training_loop import write_subset

    write_subset(folder, 2_000)
    recipe = folder / "benchmark.yaml"
    recipe.write_text(RECIPE.replace("ROOT", str(folder)))
    cores = len(os.sched_getaffinity(0))
    one_thread = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // 2))}

    def run(program: str, *arguments: object, name: str) -> float:
        place = folder / name
        place.mkdir(exist_ok=True)
        environment = {**one_thread, "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
        started_at = time.perf_counter()
        command = [sys.executable, "-c", program, str(recipe), *map(str, arguments)]
        subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True)
        return time.perf_counter() - started_at

    run(FRESH, 0.001, name="fresh")  # creates the store, and writes bytecode
    each = statistics.median(run(FRESH, 0.001 * (1 + i), name="fresh") for i in range(5))
    print(f"a fresh process for each trial: {each:.2f} s (median of 5, one after another)")
    for count in counts:
        for workers in {1, min(2, cores)}:
            seconds = run(SEARCH, count, workers, name=f"sweep-{count}-{workers}")
            print(
                f"{count} trials, {workers} at once: {seconds:.1f} s with the start-up, "
                f"ratio {each * count / seconds:.1f} against fresh processes"
            )


def print_steps() -> None:
    """Has a trial's process print when each training step was done, on the clock that all processes share."""
    from pytorch_lightning import LightningModule

    original = LightningModule.optimizer_step

    def optimizer_step(self: LightningModule, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        print("step", time.perf_counter(), flush=True)

    LightningModule.optimizer_step = optimizer_step  # type: ignore[method-assign]


def benchmark_start(folder: Path, rounds: int = 10) -> None:
    from experiments.sweep.channel import EpochReport, Task
    from experiments.sweep.worker import Worker, start_server

    start_server(json.dumps([["digits/cnn"], {}]))
    changes = {"trainer.max_epochs": "1", "trainer.extra": "{limit_train_batches: 1, limit_val_batches: 1}"}
    task = Task(["digits/cnn"], changes, "val/accuracy", None, [], "start", None, 1)
    ready, first, reported = [], [], []
    for number in range(rounds + 1):
        log = folder / f"{number}.log"
        started_at = time.perf_counter()
        worker = Worker(task, -1, log)
        ready.append(time.perf_counter() - started_at)
        assert isinstance(worker.connection.recv(), EpochReport)
        reported.append(time.perf_counter() - started_at)
        worker.kill()
        (step,) = [line for line in log.read_text().splitlines() if line.startswith("step")]
        first.append(float(step.split()[1]) - started_at)
    print(f"a trial's process requested in {1000 * statistics.median(ready[1:]):.0f} ms")
    print(f"its first step done after {1000 * statistics.median(first[1:]):.0f} ms")
    print(f"its validation done, and reported, after {1000 * statistics.median(reported[1:]):.0f} ms")
    print(f"(the first, which waits for the server's imports: {first[0]:.1f} s)")


def benchmark_conductor(folder: Path, trials: int = 1000) -> None:
    import optuna
    import psutil

    from experiments.sweep import conductor as room
    from experiments.sweep.live import Display
    from experiments.sweep.space import Dimension, SweepSettings
    from experiments.sweep.storage import open_leases, open_storage
    from experiments.sweep.study import Search
    from experiments.sweep.worker import multiprocessing

    settings = SweepSettings(
        space={
            "model.lr": Dimension(low=1e-4, high=0.1, log=True),
            "model.dropout": Dimension(low=0.0, high=0.5),
        },
        sampler="random",
    )

    class Instant:
        """A trial's process that has ended before it began."""

        def __init__(self, task: object, lease: int, log: Path) -> None:
            self.connection, theirs = multiprocessing.Pipe()
            theirs.send(room.Outcome(values=(0.5,), epochs=1, seconds=0.1))
            self.log = log

        def end(self) -> None:
            self.connection.close()

        kill = end

    def fresh_study(name: str) -> optuna.Study:
        storage = open_storage(f"sqlite:///{folder / name}.db")
        return optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))

    bare = fresh_study("bare")
    started_at = time.perf_counter()
    for _ in range(trials):
        trial = bare.ask()
        trial.suggest_float("model.lr", 1e-4, 0.1, log=True)
        trial.suggest_float("model.dropout", 0.0, 0.5)
        trial.set_user_attr("epochs", 1)
        bare.tell(trial, 0.5)
    asked_and_told = (time.perf_counter() - started_at) / trials

    room.Worker = Instant  # type: ignore[assignment, misc]
    study = fresh_study("conducted")
    memory = []

    def remember() -> None:
        memory.append(psutil.Process().memory_info().rss / 2**20)

    sweep = room.Sweep("conducted", [], {}, settings, 0, 1, None, None)
    plan = Search(study, settings, 0, trials)
    leases = open_leases(study._storage._backend, "conducted")
    started_at = time.perf_counter()
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        from rich.console import Console

        with Display(Console(file=nowhere)) as display:
            room.Conductor(sweep, plan, leases, [room.Slot(1)], display, remember).run()
    conducted = (time.perf_counter() - started_at) / trials
    print(f"{trials} instant trials: bare ask and tell {1000 * asked_and_told:.1f} ms each")
    print(
        f"conducted {1000 * conducted:.1f} ms each: {1000 * (conducted - asked_and_told):+.1f} ms of its own"
    )
    early, late = memory[trials // 10], memory[-1]
    print(f"memory after {trials // 10} trials {early:.0f} MiB, after {trials} {late:.0f} MiB")


def benchmark_pruning(folder: Path, trials: int = 24) -> None:
    import optuna

    from experiments.sweep.ranking import savings
    from experiments.sweep.storage import open_storage

    best = {}
    for pruner in ("none", "recipe's"):
        place = folder / pruner.replace("'", "")
        place.mkdir()
        change = ["--sweep.pruner=none"] if pruner == "none" else []
        workers = min(2, len(os.sched_getaffinity(0)))
        command = [
            "sweep",
            "digits/cnn",
            f"--trials={trials}",
            f"--workers={workers}",
            "--sweep.confirm=null",
        ]
        started_at = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "experiments", *command, *change],
            cwd=place, check=True, capture_output=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"},
        )  # fmt: skip
        seconds = time.perf_counter() - started_at
        storage = open_storage(f"sqlite:///{place / 'optuna.db'}")
        study = optuna.load_study(study_name="digits/cnn", storage=storage)
        best[pruner] = study.best_value
        print(f"pruner {pruner:<9} best {study.best_value:.4f}  {seconds:.0f} s in all  {savings(study, 30)}")


BENCHMARKS = {
    "trials": benchmark_trials,
    "start": benchmark_start,
    "conductor": benchmark_conductor,
    "pruning": benchmark_pruning,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], help="all where none is named")
    arguments = parser.parse_args()
    for name in arguments.which or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            BENCHMARKS[name](Path(folder))


if __name__ == "__mp_main__":  # imported by the process of a trial
    print_steps()
if __name__ == "__main__":
    main()
