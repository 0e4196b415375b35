"""A sweep's costs: trials against a fresh process for each, and its controller against bare ask and tell.

Trials train for an epoch on 2,000 images and have their record. Those of the controller end at once, and show
its memory too.

    python tests/benchmarks/sweep.py
"""

from __future__ import annotations

import os
import statistics
import time
from multiprocessing import Pipe
from pathlib import Path

import optuna
import psutil
from bench import arguments, figure, run_program, workplace, write_idx
from rich.console import Console

from darkroom.experiments.config.search_space.dimension import Dimension
from darkroom.experiments.config.search_space.settings import SweepSettings
from darkroom.experiments.sweep.execution import controller
from darkroom.experiments.sweep.execution.messages import TrialResult
from darkroom.experiments.sweep.execution.resources import Slot
from darkroom.experiments.sweep.report.live_display import Display
from darkroom.experiments.sweep.study.storage import open_leases, open_storage
from darkroom.experiments.sweep.study.study import SearchPlan

SEARCH = """
import json, sys
from darkroom.experiments.sweep.execution.worker import start_server
recipe, trials, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start_server(json.dumps([[recipe], {}]))
from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.sweep import run as sweep
from darkroom.experiments.sweep.setup import prepare_sweep
from darkroom.experiments.sweep.execution.resources import allocate_slots
from darkroom.experiments.sweep.execution.trial_records import Sweep
from darkroom.experiments.sweep.study.storage import open_leases, open_storage
from darkroom.experiments.sweep.study.study import open_study
from darkroom.experiments.tracking.store import open_store
experiment = load_experiment([recipe], {}, check_space=True)
slots = allocate_slots(experiment, workers, 1)
prepare_sweep(experiment, [recipe], {})
store, storage = open_store(), open_storage("sqlite:///optuna.db")
study = open_study(experiment, experiment.name, storage)
parent = sweep.parent_run(experiment, study, store)
shared = Sweep(experiment.name, [recipe], {}, experiment.sweep, 0, 1, store, parent)
sweep.search(shared, study, open_leases(storage, experiment.name), slots, trials)
"""
FRESH = """
import sys
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.config.experiment import load_experiment
from darkroom.experiments.tracking.prediction_artifacts import record_predictions
from darkroom.experiments.tracking.store import open_store
from darkroom.experiments.tracking.run_lifecycle import working_folder
from darkroom.experiments.training.loop import chosen_epoch
from darkroom.experiments.training.run import fit, start_record
from darkroom.experiments.training.setup import prepare
experiment = load_experiment([sys.argv[1]], {"model.lr": sys.argv[2], "trainer.progress": "false"})
prepare(experiment)
record = start_record(experiment, open_store())
with working_folder(record) as folder:
    recorder = EpochRecorder(record, experiment.trainer.monitor)
    best = fit(experiment, recorder, folder)
    chosen = chosen_epoch(experiment, recorder, best)
    record.log_metrics(chosen.metrics, step=best)
    with record.artifacts() as artifacts:
        record_predictions(artifacts, "val", chosen.predictions["val"], experiment.data)
record.end("FINISHED")
"""
RECIPE = """
name: fashion_mnist/benchmark
data: {class_path: FashionMNIST, init_args: {root: ROOT, batch_size: 128}}
model: {class_path: ImageClassifier, init_args: {backbone: small_cnn, backbone_options: {widths: [16, 32]}}}
trainer: {max_epochs: 1, early_stopping: null}
sweep: {pruner: none, sampler: random, space: {model.lr: {low: 1.0e-4, high: 1.0e-1, log: true}}}
"""


def benchmark_trials(folder: Path, tiny: bool) -> None:
    write_idx(folder, 120 if tiny else 2_000, test_images=100 if tiny else 2_000)
    recipe = folder / "benchmark.yaml"
    recipe.write_text(RECIPE.replace("ROOT", str(folder)))
    cores = len(os.sched_getaffinity(0))

    def run(program: str, *given: object, name: str) -> float:
        place = folder / name
        place.mkdir(exist_ok=True)
        threads, store = str(max(1, cores // 2)), f"sqlite:///{place / 'mlflow.db'}"
        environment = {"OMP_NUM_THREADS": threads, "MLFLOW_TRACKING_URI": store}
        started_at = time.perf_counter()
        run_program(program, [recipe, *given], place, environment, "here" if tiny else None)
        return time.perf_counter() - started_at

    if not tiny:
        run(FRESH, 0.001, name="fresh")  # creates the store, and writes bytecode
    fresh = [run(FRESH, 0.001 * (1 + turn), name="fresh") for turn in range(1 if tiny else 5)]
    each = statistics.median(fresh)
    figure("sweep/fresh", fresh, "s", "a one-epoch trial in a fresh process", "1 s")
    for count in (1,) if tiny else (16, 64):
        for workers in (1,) if tiny else sorted({1, min(2, cores)}):
            taken = run(SEARCH, count, workers, name=f"sweep-{count}-{workers}")
            what = f"a fresh process for each of {count} trials"
            against = f"the sweep, {workers} at once, start-up included"
            figure(f"sweep/trials_{count}_{workers}", [each * count / taken], "s", what, against)


class Instant:
    """A trial's process that has ended before it began."""

    def __init__(self, task: object, lease: int, log: Path) -> None:
        self.connection, theirs = Pipe()
        theirs.send(TrialResult(values=(0.5,), epochs=1, seconds=0.1))
        self.log = log

    def end(self) -> None:
        self.connection.close()

    kill = end


def benchmark_controller(folder: Path, tiny: bool) -> None:
    trials = 10 if tiny else 1000
    space = {
        "model.lr": Dimension(low=1e-4, high=0.1, log=True),
        "model.dropout": Dimension(low=0.0, high=0.5),
    }
    settings = SweepSettings(space=space, sampler="random")

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

    study = fresh_study("conducted")
    memory = []
    sweep = controller.Sweep("conducted", [], {}, settings, 0, 1, None, None)
    plan = SearchPlan(study, settings, 0, trials)
    leases = open_leases(study._storage._backend, "conducted")
    worker, controller.Worker = controller.Worker, Instant  # type: ignore[assignment, misc]
    started_at = time.perf_counter()
    try:
        with Display(Console(file=Path(os.devnull).open("w"))) as display:
            remember = lambda: memory.append(psutil.Process().memory_info().rss / 2**20)  # noqa: E731
            controller.Controller(sweep, plan, leases, [Slot(1)], display, remember).run()
    finally:
        controller.Worker = worker  # type: ignore[misc]
    conducted = (time.perf_counter() - started_at) / trials
    against = "Optuna's bare ask and tell"
    figure("sweep/conducted", [conducted / asked_and_told], "s", f"each of {trials} instant trials", against)
    figure(
        "sweep/controller",
        [1000 * (conducted - asked_and_told)],
        "ms",
        "the controller's, a trial",
        "1 ms",
    )
    what, against = f"memory after {trials} trials", f"after {trials // 10}"
    figure("sweep/memory", [memory[-1] / memory[trials // 10]], "MiB", what, against)


def main() -> None:
    given = arguments(__doc__, rounds=1)
    for benchmark in (benchmark_trials, benchmark_controller):
        with workplace() as folder:
            benchmark(folder, given.tiny)


if __name__ == "__main__":
    main()
