"""The start: from process start to the first training step, against a LightningCLI program.

Both train the same network on the same data; Darkroom opens MLflow, records parameters, data and
environment before its first step, the other records nothing.

    python tests/benchmarks/start.py [--rounds 5]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench import arguments, figure, interleaved, ratios, run_program, seconds, workplace

ROOT = Path(__file__).parents[2]
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
from darkroom.experiments.cli.main import main
class Hook:
    # Installs the stop-watch once the library has been imported by the program itself.
    def find_spec(self, name, path, target=None):
        if name == "darkroom.experiments.training.trainer":
            sys.meta_path.remove(self)
            exec({first_step!r}, {{}})
if "darkroom.experiments.training.trainer" in sys.modules:
    exec({first_step!r}, {{}})
sys.meta_path.insert(0, Hook())
main(["train", "digits/cnn"])
"""
LIGHTNING_CLI = """
from pytorch_lightning.cli import LightningCLI
import torch
import torch.nn.functional as F
import pytorch_lightning as pl
from darkroom.lightning_modules.networks.small_cnn import SmallCNN
from darkroom.datamodules import Digits

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


def seconds_to_first_step(program: str, folder: Path, tiny: bool) -> float:
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    started_at = time.time()
    printed = run_program(program, [], folder, store, "forked" if tiny else None)
    (line,) = [line for line in printed.splitlines() if line.startswith("first step")]
    return float(line.split()[-1]) - started_at


def main() -> None:
    given = arguments(__doc__, rounds=5)
    programs = {
        "darkroom": DARKROOM.format(first_step=FIRST_STEP),
        "cli": LIGHTNING_CLI.format(first_step=FIRST_STEP),
    }
    with workplace() as folder:
        if not given.tiny:
            for program in programs.values():  # writes bytecode, and creates the store
                seconds_to_first_step(program, folder, given.tiny)
        taken = interleaved(
            given.rounds,
            {
                name: lambda program=program: seconds_to_first_step(program, folder, given.tiny)
                for name, program in programs.items()
            },
        )
        help_command = [sys.executable, "-m", "darkroom", "--help"]
        told = [
            seconds(lambda: subprocess.run(help_command, cwd=ROOT, capture_output=True, check=True))
            for _ in range(given.rounds)
        ]
    against = "a LightningCLI program that records nothing"
    figure(
        "start/first_step", ratios(taken, "darkroom", "cli"), "s", "darkroom train to its first step", against
    )
    figure("start/help", told, "s", "darkroom --help", "1 s")


if __name__ == "__main__":
    main()
