"""The start of a sweep's trial: from the request for its process to its first step, and to its report.

python tests/benchmarks/trial_start.py [--rounds 10]
"""

from __future__ import annotations

import json
import time
from typing import Any

from bench import arguments, figure, workplace

from darkroom.experiments.sweep.execution.messages import EpochReport, TrialRequest
from darkroom.experiments.sweep.execution.worker import Worker, start_server


def print_steps() -> None:
    """Has a trial's process print when each training step was done, on the clock that all processes share."""
    from pytorch_lightning import LightningModule

    original = LightningModule.optimizer_step

    def optimizer_step(self: LightningModule, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        print("step", time.perf_counter(), flush=True)

    LightningModule.optimizer_step = optimizer_step  # type: ignore[method-assign]


def main() -> None:
    given = arguments(__doc__, rounds=10)
    with workplace() as folder:
        start_server(json.dumps([["digits/cnn"], {}]))
        changes = {
            "trainer.max_epochs": "1",
            "trainer.extra": "{limit_train_batches: 1}",
        }
        task = TrialRequest(["digits/cnn"], changes, "val/accuracy", None, [], "start", None, 1)
        moments: dict[str, list[float]] = {"process": [], "first_step": [], "report": []}
        for number in range(given.rounds + 1):
            log = folder / f"{number}.log"
            started_at = time.perf_counter()
            worker = Worker(task, -1, log)
            moments["process"].append(time.perf_counter() - started_at)
            assert isinstance(worker.connection.recv(), EpochReport)
            moments["report"].append(time.perf_counter() - started_at)
            worker.kill()
            (step,) = [line for line in log.read_text().splitlines() if line.startswith("step")]
            moments["first_step"].append(float(step.split()[1]) - started_at)
        for name, what in (
            ("process", "until a trial's process has been requested"),
            ("first_step", "until its first step is done"),
            ("report", "until its validation is reported"),
        ):
            figure(f"trial_start/{name}", moments[name][1:], "s", what, "1 s")
        figure(
            "trial_start/server",
            moments["report"][:1],
            "s",
            "the same of the first, which waits for imports",
            "1 s",
        )


if __name__ == "__mp_main__":  # imported by the process of a trial
    print_steps()
if __name__ == "__main__":
    main()
