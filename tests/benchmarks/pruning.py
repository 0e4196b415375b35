"""Pruning: the time that it saves on a sweep of digits/cnn, and the best value with and without.

python tests/benchmarks/pruning.py
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import optuna
from bench import arguments, figure, run_program, workplace

from darkroom.experiments.sweep.study.storage import open_storage

COMMAND = """
import sys
from darkroom.experiments.cli.main import main
assert main(sys.argv[1:]) == 0
"""


def compare(folder: Path, tiny: bool) -> None:
    best, taken = {}, {}
    told = "24 trials of digits/cnn, pruned as its recipe has it", "the same without pruning"
    short = ["--trials=1", "--trainer.max_epochs=1"] if tiny else ["--trials=24"]
    for pruner in ("recipe",) if tiny else ("none", "recipe"):
        place = folder / pruner
        place.mkdir()
        change = ["--sweep.pruner=none"] if pruner == "none" else []
        workers = 1 if tiny else min(2, len(os.sched_getaffinity(0)))
        given = ["sweep", "digits/cnn", *short, f"--workers={workers}", "--sweep.confirm=null", *change]
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
        started_at = time.perf_counter()
        run_program(COMMAND, given, place, store, "here" if tiny else None)
        taken[pruner] = time.perf_counter() - started_at
        study = optuna.load_study(
            study_name="digits/cnn", storage=open_storage(f"sqlite:///{place / 'optuna.db'}")
        )
        best[pruner] = study.best_value
    figure("pruning/time", [taken["recipe"] / taken.get("none", taken["recipe"])], "s", *told)
    figure("pruning/best", [best["recipe"] / best.get("none", best["recipe"])], "accuracy", *told)


def main() -> None:
    given = arguments(__doc__, rounds=1)
    with workplace() as folder:
        compare(folder, given.tiny)


if __name__ == "__main__":
    main()
