"""Measures images/s, data wait, memory and energy."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import PassThroughProfiler

from darkroom.datamodules.base import ImageDataModule

from .energy import GpuEnergy, ProcessorEnergy

FETCH = "[_TrainingEpochLoop].train_dataloader_next"  # Lightning's name for getting a batch
LONG_WAIT = 0.1  # share of the time from which something should be done about it
READ_ENERGY_SECONDS = 60.0  # before a counter runs over
MIB = 2**20


class HostWait:
    """Seconds that the process waits for batches."""

    def __init__(self) -> None:
        self._began_at = 0.0
        self._seconds = 0.0

    def begin(self) -> None:
        self._began_at = time.perf_counter()

    def end(self) -> None:
        self._seconds += time.perf_counter() - self._began_at

    def take(self) -> float:
        """Returns the seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class GpuWait:
    """Seconds that a GPU stands still while the process waits for batches.

    It computes behind the process, and does not notice a wait that is shorter than what it has left to
    do: events on its own timeline, read once an epoch, tell.
    """

    def __init__(self) -> None:
        self._began: list[torch.cuda.Event] = []
        self._ended: list[torch.cuda.Event] = []

    def begin(self) -> None:
        self._began.append(_event_now())

    def end(self) -> None:
        self._ended.append(_event_now())

    def take(self) -> float:
        """Returns the seconds since the last call; the GPU must have come to rest."""
        waits = zip(self._began, self._ended, strict=True)
        milliseconds = sum(float(began.elapsed_time(ended)) for began, ended in waits)
        self._began, self._ended = [], []
        return milliseconds / 1000


class Throughput(pl.Callback):
    """Measures what training costs, and leaves it among each epoch's metrics.

    Of training alone, without validation: `cost/images_per_second`, and of the mean step `cost/data_ms`,
    waiting for the batch, and `cost/compute_ms`, all the rest. Of the whole epoch: `cost/cpu_cores`, how
    many this process kept busy. Of the run so far: `cost/peak_memory_mib` of the process and
    `cost/peak_gpu_memory_mib` of tensors, `cost/cpu_joules` and `cost/gpu_joules`, where they are counted,
    of all that ran on the processors and the GPUs meanwhile.

    With several devices it stands in the process of rank 0: images are those of all, GPUs too, the rest
    is its own. A run whose `trainer.extra` has a profiler measures itself, and is not measured here.
    """

    def __init__(self) -> None:
        self.trained_seconds = 0.0  # by this process, in all epochs
        self.waited_seconds = 0.0
        self._so_far: dict[str, float] = {}  # of the run, resumed or not
        self._images = self._steps = 0  # of the epoch
        self._seconds = 0.0
        self._since: float | None = None  # when the batches began that follow each other
        self._until = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._on_gpu = trainer.strategy.root_device.type == "cuda"
        self._wait: HostWait | GpuWait = GpuWait() if self._on_gpu else HostWait()
        if isinstance(trainer.profiler, PassThroughProfiler):  # type: ignore[attr-defined]  # a public one
            trainer.profiler = _FetchListener(self)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        gpus = trainer.device_ids if self._on_gpu else []
        self._energy: dict[str, ProcessorEnergy | GpuEnergy] = {
            "cpu_joules": ProcessorEnergy(),
            "gpu_joules": GpuEnergy(gpus),
        }
        self._energy_read_at = self._clock = time.perf_counter()
        self._processor_seconds = time.process_time()

    def fetching(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()
        self._wait.begin()

    def fetched(self) -> None:
        self._wait.end()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch.targets if batch.global_targets is None else batch.global_targets)
        self._steps += 1
        self._until = time.perf_counter()
        if self._until - self._energy_read_at > READ_ENERGY_SECONDS:
            self._read_energy()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause()
        if self._seconds > 0:
            # What Lightning calls so is the epoch's metrics, whoever has them from where.
            trainer.callback_metrics.update(
                {f"cost/{name}": torch.tensor(value) for name, value in self._epoch_cost().items()}
            )
        self._images = self._steps = 0
        self._seconds = 0.0

    def _pause(self) -> None:
        """What follows is not training, until the next batch is asked for."""
        if self._since is None:
            return
        if self._on_gpu:  # which is at work on batches that ended for the process
            torch.cuda.synchronize()
            self._until = time.perf_counter()
        self._seconds += self._until - self._since
        self._since = None

    def _epoch_cost(self) -> dict[str, float]:
        waited = self._wait.take()
        self.trained_seconds += self._seconds
        self.waited_seconds += waited
        now, processor_seconds = time.perf_counter(), time.process_time()
        cores = (processor_seconds - self._processor_seconds) / (now - self._clock)
        self._clock, self._processor_seconds = now, processor_seconds
        self._read_energy()
        self._keep_peak("peak_memory_mib", _peak_memory_mib())
        if self._on_gpu:
            self._keep_peak("peak_gpu_memory_mib", torch.cuda.max_memory_allocated() / MIB)
        return {
            "images_per_second": self._images / self._seconds,
            "data_ms": 1000 * waited / self._steps,
            "compute_ms": 1000 * (self._seconds - waited) / self._steps,
            "cpu_cores": cores,
            **self._so_far,
        }

    def _read_energy(self) -> None:
        self._energy_read_at = time.perf_counter()
        for name, meter in self._energy.items():
            if meter:
                self._so_far[name] = self._so_far.get(name, 0.0) + meter.take()

    def _keep_peak(self, name: str, value: float) -> None:
        self._so_far[name] = max(self._so_far.get(name, 0.0), value)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._so_far)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._so_far = dict(state_dict)

    def hint(self, data: ImageDataModule) -> str | None:
        """What to do where training waited long for its data, if there is anything to be done."""
        share = self.waited_seconds / self.trained_seconds if self.trained_seconds else 0.0
        remedies = data.remedies_for_waiting()
        if share <= LONG_WAIT or not remedies:
            return None
        return f"hint: training waited for data {share:.0%} of its time. {' '.join(remedies)}"


class _FetchListener(PassThroughProfiler):
    """Lightning tells its profiler alone when it asks for a batch and when it has it."""

    def __init__(self, throughput: Throughput) -> None:
        super().__init__()
        self._throughput = throughput

    def start(self, action_name: str) -> None:
        if action_name == FETCH:
            self._throughput.fetching()

    def stop(self, action_name: str) -> None:
        if action_name == FETCH:
            self._throughput.fetched()

    def profile(self, action_name: str) -> Any:
        # Of other actions, of which each step has dozens, nothing is wanted, and they get nothing.
        return _NOTHING


_NOTHING = contextlib.nullcontext()


def _event_now() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024
