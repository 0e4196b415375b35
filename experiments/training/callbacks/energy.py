"""CPU (RAPL) and GPU (NVML) energy counters."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")


class ProcessorEnergy:
    """What Linux counts for processor packages and their memory (RAPL), where it lets us read it.

    The counters run over within an hour at full load: they are to be read every few minutes.

    Args:
        folder: Where Linux shows its power zones.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        # A package's other zones are parts of it, and "psys" is the whole platform.
        zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _is_counted(zone)]
        # Since 2020 most distributions let only root read them (CVE-2020-8694).
        first = {zone: _microjoules(zone / "energy_uj") for zone in zones}
        self._last = {zone: value for zone, value in first.items() if value is not None}

    def __bool__(self) -> bool:
        return bool(self._last)

    def take(self) -> float:
        """Joules since the last time."""
        total = 0
        for zone, before in self._last.items():
            now = _microjoules(zone / "energy_uj")
            if now is None:  # it was readable once
                continue
            wraps_at = _microjoules(zone / "max_energy_range_uj") or 0
            total += now - before if now >= before else now - before + wraps_at
            self._last[zone] = now
        return total / 1e6


class GpuEnergy:
    """What NVIDIA's GPUs count, from Volta on; needs the package nvidia-ml-py.

    Args:
        devices: As torch numbers them.
    """

    def __init__(self, devices: Sequence[int]) -> None:
        self._counters: list[tuple[Any, int]] = []  # a handle, which is no key, and its last count
        if not devices or importlib.util.find_spec("pynvml") is None:
            return
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            for device in devices:  # NVML does not know of CUDA_VISIBLE_DEVICES
                uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
                handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                self._counters.append((handle, pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
        except pynvml.NVMLError:  # an older GPU, or a part of one, that does not count
            self._counters = []

    def __bool__(self) -> bool:
        return bool(self._counters)

    def take(self) -> float:
        """Joules since the last time."""
        count = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        before = self._counters
        self._counters = [(handle, count(handle)) for handle, _ in before]
        return sum(now - then for (_, now), (_, then) in zip(self._counters, before, strict=True)) / 1000


def _is_counted(zone: Path) -> bool:
    try:
        name = (zone / "name").read_text().strip()
    except OSError:
        return False
    return name.startswith("package") or name == "dram"


def _microjoules(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except OSError:
        return None
