"""`darkroom sweep --launcher ray|slurm`: the same command on several machines that share the study.

A sweep's process keeps nothing to itself, so that a launcher only places copies of it and waits for them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import importlib
import importlib.util
import json
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from experiments.errors import Interrupted, RequestError, nearest

LAST_LINES = 12  # of what the command said on a machine
POLL_SECONDS = 0.2
JOBS = Path("mlruns") / "jobs"  # what SLURM is given, and what its jobs print
ALONE = ("nodes", "tasks_per_node", "ntasks_per_node")  # a job is one machine
FORWARDED = ("MLFLOW_", "AWS_", "PG")  # to another machine: credentials of the stores
ENGINE_ENVIRONMENT = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "PMI")  # Lightning obeys these
MAX_TIMEOUTS = 100  # of a SLURM job, each of which queues it again
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ending:
    """How the command ended on one machine."""

    host: str
    status: int
    last_lines: Sequence[str]


@dataclass(frozen=True)
class Copy:
    """The command for one machine; Ray and submitit carry it there and call it.

    Args:
        arguments: Of `darkroom`.
        folder: Where to run it. A machine without that folder uses a temporary one.
        recipes: The text of each file among the arguments, for such a machine.
        needs_folder: Whether the study is kept in that folder.
        environment: Variables to set.
        cpus: How many processor cores the engine gives; None to do as SLURM says.
    """

    arguments: Sequence[str]
    folder: str
    recipes: Mapping[str, str]
    needs_folder: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: int | None = None

    def __call__(self) -> Ending:
        """Runs the command to its end, passing on what it prints."""
        host = socket.gethostname()
        with contextlib.ExitStack() as stack:
            folder, arguments = Path(self.folder), list(self.arguments)
            if not folder.is_dir():
                if self.needs_folder:
                    return Ending(host, 2, [f"{host} has no folder {folder}; SQLite needs it shared"])
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-")))
                for number, (source, text) in enumerate(self.recipes.items()):
                    (folder / f"{number}.yaml").write_text(text)
                    arguments = [f"{number}.yaml" if each == source else each for each in arguments]
            return Ending(host, *self._run(arguments, folder))

    def checkpoint(self) -> Any:
        """What submitit queues again when a job's time is up: the same, as nothing is lost."""
        return importlib.import_module("submitit.helpers").DelayedSubmission(self)

    def _run(self, arguments: Sequence[str], folder: Path) -> tuple[int, Sequence[str]]:
        cpus = self.cpus or int(os.environ.get("SLURM_CPUS_ON_NODE", 0)) or len(os.sched_getaffinity(0))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ENGINE_ENVIRONMENT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.sweep.launchers", str(os.getpid()), str(cpus), *arguments],
            cwd=folder,
            env={**kept, **self.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the launcher's terminal comes through the engine alone
        )
        assert process.stdout is not None
        last_lines: deque[str] = deque(maxlen=LAST_LINES)
        reader = threading.Thread(target=_pass_on, args=(process.stdout, last_lines), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                try:
                    time.sleep(POLL_SECONDS)
                except KeyboardInterrupt:
                    if "SLURM_JOB_ID" not in os.environ:  # SLURM tells every process of the job
                        process.send_signal(signal.SIGINT)
        finally:
            process.kill()
            process.wait()
            reader.join(timeout=5)
            process.stdout.close()
        return process.returncode, list(last_lines)


def _pass_on(lines: Iterable[str], last_lines: deque[str]) -> None:
    for line in lines:
        print(line, end="", flush=True)
        last_lines.append(line.rstrip())


class Engine(Protocol):
    """Where copies were placed."""

    @property
    def pending(self) -> int:
        """How many have not ended."""

    def wait(self) -> Iterator[Ending]:
        """Those that ended, after a moment's wait."""

    def stop(self, at_once: bool) -> None:
        """Interrupts all as Ctrl-C would, or kills them."""


class RayEngine:
    """A task on each machine of the Ray cluster that RAY_ADDRESS names, or of a new one on this machine."""

    def __init__(self, copy: Copy, arguments: argparse.Namespace) -> None:
        if arguments.launcher_option:
            raise RequestError("--launcher-option is for SLURM; Ray's machines are taken as they are")
        # Ray reports on its use otherwise, and repeats no line that two machines print.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        self._ray = importlib.import_module("ray")
        try:
            self._ray.init()
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequestError(
                f"Ray's cluster does not answer: {' '.join(str(error).split())[:300]}"
            ) from None
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        machines, cpus, gpus = share(nodes, arguments.machines, arguments.workers, arguments.trials_per_gpu)
        print(f"{machines} machines of Ray's cluster, on each {cpus} CPUs and {gpus} GPUs", flush=True)
        forwarded = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
        placed = self._ray.remote(_call).options(
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy="SPREAD",
            max_retries=-1,  # of tasks whose node was lost, never of a command that failed
        )
        placed_copy = replace(copy, environment=forwarded, cpus=cpus)
        self._tasks = [placed.remote(placed_copy) for _ in range(machines)]

    @property
    def pending(self) -> int:
        return len(self._tasks)

    def wait(self) -> Iterator[Ending]:
        done, self._tasks = self._ray.wait(self._tasks, num_returns=1, timeout=POLL_SECONDS)
        for task in done:
            try:
                yield self._ray.get(task)
            except self._ray.exceptions.TaskCancelledError:
                yield Ending("Ray", 130, ["stopped"])
            except self._ray.exceptions.RayError as error:
                yield Ending("Ray", 1, str(error).strip().splitlines()[-LAST_LINES:])

    def stop(self, at_once: bool) -> None:
        for task in self._tasks:
            self._ray.cancel(task, force=at_once)


def _call(copy: Copy) -> Ending:
    return copy()


def share(
    nodes: Sequence[Mapping[str, float]], machines: int | None, workers: int | None, trials_per_gpu: int
) -> tuple[int, int, int]:
    """How many of Ray's nodes to use, and how many CPUs and GPUs of each: all, or as `workers` needs.

    Those with GPUs come first, and those without are left out where there are any.

    >>> share([{"CPU": 8.0}, {"CPU": 16.0}], None, None, 1)
    (2, 8, 0)
    >>> share([{"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}], None, 2, 1)
    (1, 16, 2)
    >>> share([{"CPU": 8.0}], 3, 2, 1)
    (3, 2, 0)

    Raises:
        RequestError: No node has as many as `workers` needs.
    """
    sizes = sorted(((int(n.get("GPU", 0)), int(n.get("CPU", 0))) for n in nodes), reverse=True)
    sizes = [(gpus, cpus) for gpus, cpus in sizes if cpus >= 1 and (gpus >= 1) == (sizes[0][0] >= 1)]
    if not sizes:
        raise RequestError("no node of Ray's cluster has a CPU to give")
    chosen = sizes[: machines or len(sizes)]
    gpus, cpus = min(size[0] for size in chosen), min(size[1] for size in chosen)
    if workers is not None:
        room = gpus * trials_per_gpu if gpus else cpus
        if workers > room:
            raise RequestError(f"--workers must be at most {room}, what each of Ray's machines can take")
        used = -(-workers // trials_per_gpu) if gpus else 0
        cpus, gpus = (max(1, cpus * used // gpus) if gpus else workers), used
    return machines or len(chosen), cpus, gpus


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
        self._in_slurm = cluster == "slurm"
        names = " ".join(str(job.job_id) for job in self._jobs)
        print(f"{cluster} jobs {names}; what they print: {JOBS}", flush=True)

    @property
    def pending(self) -> int:
        return len(self._jobs)

    def wait(self) -> Iterator[Ending]:
        time.sleep(POLL_SECONDS)
        for job in [job for job in self._jobs if job.done()]:
            self._jobs.remove(job)
            error = job.exception()
            if error is None:
                yield job.result()
            else:
                yield Ending(f"job {job.job_id}", 1, str(error).strip().splitlines()[-LAST_LINES:])

    def stop(self, at_once: bool) -> None:
        if not self._in_slurm or at_once:
            for job in self._jobs:
                job.cancel()
            return
        # What runs is interrupted, what waits is withdrawn.
        names = [str(job.job_id) for job in self._jobs]
        subprocess.run(["scancel", "--signal=INT", *names], check=False)
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


# The launcher's own process --------------------------------------------------------------------


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    """Places the copies, waits, and tells how each ended; 0 where all ended with 0."""
    check(arguments, overrides)
    copy = Copy(
        arguments=command_line(arguments, overrides),
        folder=str(Path.cwd()),
        recipes={source: Path(source).read_text() for source in _files(arguments)},
        needs_folder=arguments.storage.startswith("sqlite"),
    )
    if arguments.dry_run:
        print(slurm_script(copy, arguments), end="")
        return 0
    engine: Engine = (RayEngine if arguments.launcher == "ray" else SlurmEngine)(copy, arguments)
    statuses: list[int] = []
    interrupts = 0
    total = engine.pending
    while engine.pending:
        try:
            for ending in engine.wait():
                statuses.append(ending.status)
                print(f"machine {len(statuses)} of {total} ({ending.host}) ended with status {ending.status}")
                print("".join(f"  {line}\n" for line in ending.last_lines), end="", flush=True)
        except KeyboardInterrupt:
            interrupts += 1
            engine.stop(at_once=interrupts > 1)
            if interrupts > 1:
                break
            print("Ctrl-C: stopping after the present epochs; again stops at once", flush=True)
    if interrupts:
        raise Interrupted("interrupted; the same command again goes on")
    failed = {status for status in statuses if status != 0}
    return failed.pop() if len(failed) == 1 and failed <= {1, 2, 130} else int(bool(failed))


def command_line(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> list[str]:
    """The command that each machine runs: this one, without its launcher."""
    own = []
    for name, value in vars(arguments).items():
        if name in ("experiments", "launcher", "machines", "launcher_option", "dry_run") or not value:
            continue
        flag = f"--{name.replace('_', '-')}"
        own.append(flag if value is True else f"{flag}={value}")
    return ["sweep", *arguments.experiments, *own, *(f"--{key}={value}" for key, value in overrides.items())]


def check(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Refuses what could only fail once the machines have been waited for.

    Raises:
        RequestError: An extra is missing, the machines would share no study or no store, or the
            configuration is wrong.
    """
    launcher = arguments.launcher
    library = {"ray": "ray", "slurm": "submitit"}[launcher]
    if importlib.util.find_spec(library) is None:
        raise RequestError(f"--launcher {launcher} needs {library}: pip install 'darkroom[{launcher}]'")
    if arguments.dry_run and launcher != "slurm":
        raise RequestError("--dry-run shows the script for SLURM; give it with --launcher slurm")
    if launcher == "slurm":
        slurm_options(arguments)
    if arguments.storage is None:
        raise RequestError(
            "--launcher needs a --storage that all machines reach, such as postgresql://host/database "
            "(or sqlite:////folder/optuna.db in a folder that they share)"
        )
    # In a process of its own, as it imports torch.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        values = (list(arguments.experiments), dict(overrides), arguments.storage, arguments.dry_run)
        pool.submit(_check_configuration, *values).result()
    if arguments.storage.startswith("sqlite"):
        print("SQLite serves several machines only in a folder that they share, with locks that hold there")


def _check_configuration(
    sources: Sequence[str], overrides: Mapping[str, str], storage: str, dry_run: bool
) -> None:
    from experiments.config import load_experiment
    from experiments.sweep.storage import complete_url, open_storage
    from experiments.tracking import open_store

    complete_url(storage)
    recorded = load_experiment(sources, overrides, check_space=True).mlflow.enabled
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if recorded and ("://" not in uri or uri.startswith("file:")) and not uri.startswith("databricks"):
        raise RequestError(
            "--launcher needs an MLflow store that all machines reach: set MLFLOW_TRACKING_URI to a server "
            f"(http://host:5000) or a database's URL, got {uri or 'none'!r}, or turn recording off with "
            "--mlflow.enabled=false"
        )
    if not dry_run:  # created here, where they are not there yet, as machines that do so together may fail
        open_storage(storage)
        if recorded:
            open_store()


def _files(arguments: argparse.Namespace) -> list[str]:
    return [source for source in arguments.experiments if Path(source).suffix in (".yaml", ".yml")]


# On the machine --------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """The command itself, in a process that does not outlive the one which Ray or SLURM knows of."""
    parent, cpus, *arguments = argv
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return 1
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray starts its processes with it blocked
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # SLURM sends these to all processes of a job that is to end; the parent answers, or SIGKILL follows.
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    leases = _pin(int(cpus))
    sys.argv = ["darkroom", *arguments]
    try:
        status: int = importlib.import_module("experiments.__main__").main(arguments)
        return status
    finally:
        for lease in leases:
            os.close(lease)


def _pin(cpus: int) -> list[int]:
    """Keeps to so many cores, which no other process of ours on this machine keeps to.

    Ray only counts cores, and SLURM may; two conductors on all of them would halve each other.
    """
    cores = sorted(os.sched_getaffinity(0))
    if cpus >= len(cores):
        return []
    folder = Path(tempfile.gettempdir()) / f"darkroom-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    taken: list[int] = []
    leases: list[int] = []
    for core in cores:
        lease = os.open(folder / str(core), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lease)
            continue
        taken.append(core)
        leases.append(lease)
        if len(taken) == cpus:
            break
    others = [core for core in cores if core not in taken]
    os.sched_setaffinity(0, [*taken, *others[: cpus - len(taken)]])
    return leases


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
