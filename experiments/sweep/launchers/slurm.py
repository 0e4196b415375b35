"""Copies of the command as jobs of SLURM, which submitit submits."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import RequestError, nearest
from .remote_command import LAST_LINES, POLL_SECONDS, Copy, Ending

JOBS = Path("mlruns") / "jobs"  # what SLURM is given, and what its jobs print
ALONE = ("nodes", "tasks_per_node", "ntasks_per_node")  # a job is one machine
QUEUE_SECONDS = 15.0  # between questions to SLURM about its queue
MAX_TIMEOUTS = 100  # of a SLURM job, each of which queues it again


class SlurmEngine:
    """A job of an array on each machine, queued again when it is pre-empted or its time is up."""

    def __init__(self, copy: Copy, arguments: argparse.Namespace) -> None:
        submitit = importlib.import_module("submitit")
        options = slurm_options(arguments)
        cluster = options.pop("cluster", "slurm")
        folder, machines = JOBS.absolute(), arguments.machines or 1
        copy = replace(copy, cpus=options.get("cpus_per_task"))
        generic = {"timeout_min": options.pop("time"), "name": options.pop("job_name")}
        try:
            executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
            executor.update_parameters(**generic, **{f"slurm_{key}": value for key, value in options.items()})
            with executor.batch():
                self._jobs = [executor.submit(copy) for _ in range(machines)]
        except (RuntimeError, ValueError, NameError, AssertionError, TypeError) as error:
            raise RequestError(f"SLURM's jobs can't be submitted: {' '.join(str(error).split())}") from None
        except subprocess.CalledProcessError as error:
            raise RequestError(f"SLURM took no job: {error.output or error}") from None
        # Submitit warns of each question that sacct can't answer.
        logging.getLogger("submitit").setLevel(logging.ERROR)
        self._in_slurm = cluster == "slurm"
        self._asked_at = time.monotonic()
        names = " ".join(str(job.job_id) for job in self._jobs)
        print(f"{cluster} jobs {names}; what they print: {JOBS}", flush=True)

    @property
    def pending(self) -> int:
        return len(self._jobs)

    def wait(self) -> Iterator[Ending]:
        time.sleep(POLL_SECONDS)
        gone = self._gone()
        for job in [job for job in self._jobs if job.done() or job.job_id in gone]:
            self._jobs.remove(job)
            if not job.done():
                yield Ending(f"job {job.job_id}", 1, ["it has left SLURM's queue without a result"])
            elif error := job.exception():
                yield Ending(f"job {job.job_id}", 1, str(error).strip().splitlines()[-LAST_LINES:])
            else:
                yield job.result()

    def _gone(self) -> set[str]:
        """Jobs that are not in SLURM's queue, which is asked now and then.

        How a job ended SLURM tells by its accounting, which submitit asks and which not every SLURM has.
        """
        if not self._in_slurm or time.monotonic() < self._asked_at + QUEUE_SECONDS:
            return set()
        self._asked_at = time.monotonic()
        asked = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True, check=False
        )
        return set() if asked.returncode else {job.job_id for job in self._jobs} - {*asked.stdout.split()}

    def stop(self, at_once: bool) -> None:
        if not self._in_slurm or at_once:
            for job in self._jobs:
                job.cancel()
            return
        # What runs is interrupted, as `copy` hands it on; what waits is withdrawn.
        names = [str(job.job_id) for job in self._jobs]
        subprocess.run(["scancel", "--signal=HUP", *names], check=False)
        subprocess.run(["scancel", "--state=PENDING", *names], check=False)


def slurm_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `sbatch`, by the names that submitit gives them.

    Raises:
        RequestError: One is unknown, or of the wrong kind.
    """
    submitit = importlib.import_module("submitit")
    known = {*submitit.SlurmExecutor._valid_parameters(), "cluster"} - {*ALONE}
    options: dict[str, Any] = {"job_name": f"darkroom {' '.join(arguments.experiments)}"}
    for given in arguments.launcher_option:
        key, equals, text = given.partition("=")
        key = key.lstrip("-").replace("-", "_")
        if not equals:
            raise RequestError(f"--launcher-option must be key=value, got {given!r}")
        if key in ALONE:
            raise RequestError(f"--launcher-option {key}: each machine is one job; give --machines N instead")
        if key not in known:
            raise RequestError(f"--launcher-option {key} is none of submitit's; {nearest(key, known)}")
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    if not isinstance(options.get("time"), int):
        raise RequestError(
            "--launcher-option time=MINUTES must say how long a job may last, in whole minutes; "
            "a job whose time is up is queued again, and goes on"
        )
    for key in ("setup", "teardown", "srun_args"):  # lists
        if isinstance(options.get(key), str):
            options[key] = [options[key]]
    if arguments.workers is not None:
        options.setdefault("cpus_per_task", arguments.workers)
    if "cpus_per_task" in options:  # which srun no longer takes from sbatch
        options["srun_args"] = [f"--cpus-per-task={options['cpus_per_task']}", *options.get("srun_args", [])]
    options["additional_parameters"] = {"requeue": True, **options.get("additional_parameters", {})}
    return options


def slurm_script(copy: Copy, arguments: argparse.Namespace) -> str:
    """What `sbatch` would be given."""
    slurm = importlib.import_module("submitit.slurm.slurm")
    options = slurm_options(arguments)
    options.pop("cluster", None)
    folder, machines = JOBS.absolute(), arguments.machines or 1
    text: str = slurm._make_sbatch_string(
        f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}",
        folder,
        map_count=machines if machines > 1 else None,
        **options,
    )
    return f"{text}\n# each job: darkroom {shlex.join(copy.arguments)}\n"
