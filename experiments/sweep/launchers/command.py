"""Places the sweep command on several machines.

A sweep's process keeps nothing to itself, so that a launcher only places copies of it and waits for them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ...errors import Interrupted, RequestError
from ...runtime.extras import require
from .base import Engine
from .ray import RayEngine
from .remote_command import Copy
from .slurm import SlurmEngine, slurm_options, slurm_script


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
    require(library, f"--launcher {launcher}")
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
    from ...config.experiment import load_experiment
    from ...tracking.store import open_store
    from ..study.samplers_and_pruners import check_options
    from ..study.storage import complete_url, open_storage

    complete_url(storage)
    experiment = load_experiment(sources, overrides, check_space=True)
    if experiment.sweep is not None:
        check_options(experiment.sweep)
    recorded = experiment.mlflow.enabled
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
