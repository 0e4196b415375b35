"""Precision and memory layout as this machine would choose them, against float32 in the usual layout.

Seconds of a training step on one batch.

    python tests/benchmarks/precision.py [--rounds 8] [--networks resnet18@64 small_cnn@28 ...]
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from bench import arguments, figure, interleaved, ratios

from darkroom.experiments.config.hardware_defaults import settled
from darkroom.experiments.config.trainer_settings import TrainerSettings
from darkroom.experiments.runtime.startup import keep_memory
from darkroom.lightning_modules.backbones.factory import build_network

NETWORKS = ["resnet18@64", "small_cnn@28", "cifar_resnet@32", "tf_efficientnet_lite0@128", "densenet121@64"]
BATCH_SIZE = 64


class Arm:
    """A network that is trained with some settings."""

    def __init__(self, backbone: str, size: int, settings: TrainerSettings) -> None:
        torch.manual_seed(0)
        network = build_network(backbone, {}, num_outputs=10, image_shape=(3, size, size))
        self.settings = settled(settings, network)
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        self.network = network.to(memory_format=layout)
        self.images = torch.randn(BATCH_SIZE, 3, size, size).to(memory_format=layout)
        self.targets = torch.randint(10, (BATCH_SIZE,))
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step(self) -> float:
        started_at = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bf16-mixed"):
            loss = F.cross_entropy(self.network(self.images), self.targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - started_at


def main() -> None:
    given = arguments(__doc__, rounds=8, networks=(NETWORKS, ["small_cnn@28"]))
    for name in given.networks:
        backbone, _, size = name.partition("@")
        plain = Arm(backbone, int(size), TrainerSettings(precision="32-true", channels_last=False))
        chosen = Arm(backbone, int(size), TrainerSettings())
        plain.step(), chosen.step()  # the first step of each allocates
        taken = interleaved(given.rounds, {"plain": plain.step, "chosen": chosen.step})
        layout = "channels last" if chosen.settings.channels_last else "contiguous"
        what = f"float32, contiguous, {name}"
        against = f"{chosen.settings.precision}, {layout}, as this machine chooses"
        figure(f"precision/{backbone}", ratios(taken, "plain", "chosen"), "s", what, against)


if __name__ == "__main__":
    keep_memory()
    main()
