"""Energy is read as Linux counts it, also past the end of a counter, and not where that is closed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from darkroom.experiments.training.callbacks.energy import GpuEnergy, ProcessorEnergy


def write_zone(folder: Path, zone: str, name: str, microjoules: int) -> Path:
    """A power zone as the kernel's powercap documentation has it."""
    place = folder / zone
    place.mkdir(parents=True, exist_ok=True)
    (place / "name").write_text(f"{name}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text("262143328850\n")
    return place / "energy_uj"


def test_packages_and_their_memory_count_and_neither_their_parts_nor_the_whole_platform(tmp_path):
    names = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}
    names |= {"intel-rapl:1": "psys", "intel-rapl:2": "package-1"}
    counters = [write_zone(tmp_path, zone, name, 1000) for zone, name in names.items()]
    meter = ProcessorEnergy(tmp_path)
    for power, counter in enumerate(counters):
        counter.write_text(f"{1000 + 10**power * 1_000_000}\n")
    assert meter.take() == pytest.approx(1 + 100 + 10_000)
    assert meter.take() == 0


def test_a_counter_that_ran_over_goes_on_from_its_end(tmp_path):
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 262_143_000_000)
    meter = ProcessorEnergy(tmp_path)
    counter.write_text("1000000\n")
    assert meter.take() == pytest.approx(0.328850 + 1)


def test_what_is_not_there_or_closed_is_no_meter(tmp_path):
    assert not ProcessorEnergy(tmp_path / "nothing")
    assert not GpuEnergy([])
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    counter.chmod(0)
    assert not ProcessorEnergy(tmp_path)


class FakeHandle:
    """As NVML's: a ctypes pointer, which is no key of a dictionary."""

    __hash__ = None


def test_the_energy_of_each_gpu_counts_from_the_last_time(monkeypatch):
    counts = {"GPU-a": [1000, 3000, 3500], "GPU-b": [0, 500, 500]}  # millijoules

    def handle_of(uuid):
        handle = FakeHandle()
        handle.uuid = uuid
        return handle

    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle_of,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: counts[handle.uuid].pop(0),
        __spec__=SimpleNamespace(),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    properties = [SimpleNamespace(uuid="a"), SimpleNamespace(uuid="b")]
    monkeypatch.setattr("torch.cuda.get_device_properties", properties.__getitem__)
    meter = GpuEnergy([0, 1])
    assert meter
    assert [meter.take(), meter.take()] == [2.5, 0.5]
