"""What the benchmarks share: arguments, alternating rounds, generated data, and one line for each figure."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from darkroom.datamodules.sources.mnist import read_idx

FIGURE = re.compile(r"\w+/\S+ +-?[\d,.]+  \[-?[\d,.]+, -?[\d,.]+\]  [^:]+: .+ / .+")
_FIGURES = sys.stdout  # where nothing but figures goes

# Arguments and figures --------------------------------------------------------------------------


def arguments(
    doc: str | None,
    *,
    rounds: int,
    more: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
    **sizes: tuple[Any, Any],
) -> argparse.Namespace:
    """The command line; from then on what anything else prints goes to standard error.

    Args:
        doc: The benchmark's docstring.
        rounds: How often everything is measured.
        more: Adds other options.
        sizes: For each of them its value, and the one with which --tiny ends within seconds; a list admits
            several.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    tiny = "--tiny" in sys.argv[1:]
    parser.add_argument("--tiny", action="store_true", help="look whether it runs: its figures mean nothing")
    parser.add_argument("--rounds", type=int, default=1 if tiny else rounds)
    for name, (full, little) in sizes.items():
        several = isinstance(full, list)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=little if tiny else full,
            type=type(full[0] if several else full),
            nargs="+" if several else None,
        )
    more(parser)
    given = parser.parse_args()
    sys.stdout = sys.stderr
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning_fabric", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return given


def figure(name: str, values: Sequence[float], unit: str, what: str, against: str) -> None:
    """Prints the one line of a figure: median, least and greatest of its values.

    Args:
        name: The benchmark's name, a slash, and the figure's, without spaces.
        values: One for each round: ratios, or numbers of the unit that `against` names, such as "1 s".
        unit: Of what the ratio is: "images/s", "s", "share".
        what: Is measured.
        against: It is held.
    """
    median, least, most = (_number(value) for value in (statistics.median(values), min(values), max(values)))
    line = f"{name:<40} {median}  [{least}, {most}]  {unit}: {what} / {against}"
    assert FIGURE.fullmatch(line), line
    print(line, file=_FIGURES, flush=True)


def _number(value: float) -> str:
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}"


def interleaved(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each contestant returns in each round; every second round goes backwards, against drift."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds):
        order = list(contestants) if round_number % 2 == 0 else list(contestants)[::-1]
        for name in order:
            measured[name].append(contestants[name]())
            print(f"round {round_number + 1}: {name} {measured[name][-1]:.4g}", file=sys.stderr, flush=True)
    return measured


def ratios(measured: Mapping[str, Sequence[float]], what: str, against: str) -> list[float]:
    """Round by round, so that the machine's other work hits both."""
    return [ours / theirs for ours, theirs in zip(measured[what], measured[against], strict=True)]


def seconds(work: Callable[[], object], calls: int = 1) -> float:
    """What a call takes."""
    started_at = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started_at) / calls


# Places and data --------------------------------------------------------------------------------


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder with a store of its own, in which the process works meanwhile."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(name) / 'mlflow.db'}"
        yield Path(name)


def write_idx(folder: Path, images: int, test_images: int) -> None:
    """A data set of Fashion-MNIST's shape in idx files: its images where DARKROOM_DATA has them, or noise."""
    root = os.environ.get("DARKROOM_DATA")
    for prefix, size in (("train", images), ("t10k", test_images)):
        if root:
            source = Path(root) / "fashion_mnist"
            pixels = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")[:size]
            labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")[:size]
        else:
            random = np.random.default_rng(0)
            pixels = random.integers(0, 256, (size, 28, 28), dtype=np.uint8)
            labels = (np.arange(size) % 10).astype(np.uint8)
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(
                gzip.compress(header + array.tobytes(), compresslevel=1)
            )


def write_photographs(folder: Path, count: int, size: tuple[int, int], source: Path | None = None) -> None:
    """JPEGs of (width, height) in two classes, made of a folder's photographs or of smoothed noise."""
    found = sorted(source.rglob("*.jp*g")) if source else []
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if found:
            picture = ImageOps.fit(Image.open(found[number % len(found)]).convert("RGB"), size)
        else:
            noise = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
        picture.save(path, quality=90)


# Programs ---------------------------------------------------------------------------------------


Tiny = Literal["forked", "here"]


def run_program(
    program: str,
    given: Sequence[object],
    folder: Path,
    environment: Mapping[str, str],
    tiny: Tiny | None = None,
) -> str:
    """What a Python program prints that runs in a process of its own.

    Args:
        program: Its text.
        given: Its arguments.
        folder: Where it runs.
        environment: What it has besides this process's.
        tiny: It need not import again what this process has: "forked" from this process, or "here", in
            this process itself, where it may start processes of its own but must return.
    """
    command = [str(each) for each in given]
    if tiny is None:
        return subprocess.run(
            [sys.executable, "-c", program, *command],
            cwd=folder,
            env={**os.environ, **environment},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    if tiny == "here":
        os.environ.update(environment)
        sys.argv[1:] = command
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(program, {"__name__": "__main__"})
        return printed.getvalue()
    output, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(theirs, 1)
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv[1:] = command
        _run_and_leave(program)
    os.close(theirs)
    with os.fdopen(output) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"a program ended with {status}"
    return text


def _run_and_leave(program: str) -> NoReturn:
    status = 1
    try:
        sys.stdout = os.fdopen(1, "w")
        exec(program, {"__name__": "__main__"})
        sys.stdout.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
