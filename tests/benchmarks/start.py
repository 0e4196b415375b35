"""The start: from process start to the first training step, against a LightningCLI program.

Both train the same network on the same data; Darkroom opens MLflow, records parameters, data and
environment before its first step, the other records nothing.

    python tests/benchmarks/start.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST_STEP = """
import os, time
import pytorch_lightning as pl

original = pl.LightningModule.optimizer_step
def first_step(self, *arguments, **options):
    original(self, *arguments, **options)
    print("first step", time.time(), flush=True)
    os._exit(0)
pl.LightningModule.optimizer_step = first_step
"""

DARKROOM = """
import sys
from experiments.__main__ import main
class Hook:
    # Installs the stop-watch once the library has been imported by the program itself.
    def find_spec(self, name, path, target=None):
        if name == "experiments.trainer":
            sys.meta_path.remove(self)
            exec({first_step!r}, {{}})
sys.meta_path.insert(0, Hook())
main(["train", "digits/cnn"])
"""

LIGHTNING_CLI = """
from pytorch_lightning.cli import LightningCLI
import torch
import torch.nn.functional as F
import pytorch_lightning as pl
from lightning_modules.networks.small_cnn import SmallCNN
from datamodules import Digits

class Module(pl.LightningModule):
    def __init__(self, lr: float = 3e-3):
        super().__init__()
        self.lr = lr
        self.network = SmallCNN(10, (1, 8, 8))
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch.images), batch.targets)
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)

{first_step}
LightningCLI(Module, Digits, args=["fit", "--trainer.logger=false", "--trainer.accelerator=cpu"],
             save_config_callback=None)
"""


def seconds_to_first_step(program: str, folder: Path) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    started_at = time.time()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, env=environment
    )
    for line in done.stdout.splitlines():
        if line.startswith("first step"):
            return float(line.split()[-1]) - started_at
    raise SystemExit(done.stdout + done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    programs = {
        "darkroom": DARKROOM.format(first_step=FIRST_STEP),
        "LightningCLI": LIGHTNING_CLI.format(first_step=FIRST_STEP),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        for program in programs.values():  # writes bytecode, and creates the store
            seconds_to_first_step(program, Path(folder))
        for _ in range(arguments.rounds):
            for name, program in programs.items():
                seconds[name].append(seconds_to_first_step(program, Path(folder)))
        started_at = time.perf_counter()
        subprocess.run([sys.executable, "-m", "experiments", "--help"], capture_output=True, check=True)
        help_seconds = time.perf_counter() - started_at
    for name, values in seconds.items():
        print(f"{name:<14} {statistics.median(values):6.2f} s to the first step")
    ratios = [ours / theirs for ours, theirs in zip(*seconds.values(), strict=True)]
    spread = f"(from {min(ratios):.2f} to {max(ratios):.2f})"
    print(f"darkroom / LightningCLI {statistics.median(ratios):.2f} {spread}")
    print(f"darkroom --help {help_seconds:.2f} s")


if __name__ == "__main__":
    main()
