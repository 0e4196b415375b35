"""Fully sharded data parallel strategy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


class FullySharded(ModelParallelStrategy):
    """Fully sharded data parallelism: each process trains on its share of every batch, as under DDP.

    Of weights, gradients and the optimizer's state each keeps one share, and gathers a block of the network
    while it computes with it (Zhao et al. 2023; PyTorch's fully_shard). Checkpoints hold the whole.

    Args:
        world_size: Of how many processes.
    """

    def __init__(self, world_size: int) -> None:
        super().__init__(
            data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self._take_buffers()
        return super().training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        self._take_buffers()
        return super().validation_step(*args, **kwargs)

    def teardown(self) -> None:
        super().teardown()
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = None  # or the next trainer's would shard it too

    def _take_buffers(self) -> None:
        """Has all processes go on with the batch norms' statistics of the first one, as DDP has them."""
        assert self.lightning_module is not None
        buffers = [buffer for buffer in self.lightning_module.buffers() if buffer.is_floating_point()]
        if not buffers:
            return
        together = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(together, 0)
        parts = torch.split(together, [buffer.numel() for buffer in buffers])
        for buffer, values in zip(buffers, parts, strict=True):
            buffer.copy_(values.view_as(buffer))


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Leaves this process its share of each parameter; in place, and for good.

    Args:
        network: On any device; its shares move to the mesh's.
        mesh: One-dimensional, of all processes.
    """
    network.to(memory_format=torch.contiguous_format)  # it takes no other
    for block in list(blocks(network)):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """What a network is a sequence of, such as residual blocks: the innermost that have layers of their own.

    >>> layer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> [len(block) for block in blocks(nn.Sequential(nn.Linear(2, 2), nn.ModuleList([layer, layer])))]
    [2]
    """
    for child in network.children():
        inner = list(blocks(child))
        if inner:
            yield from inner
        elif isinstance(network, nn.Sequential | nn.ModuleList | nn.ModuleDict) and _has_layers(child):
            yield child


def _has_layers(module: nn.Module) -> bool:
    return any(next(child.parameters(), None) is not None for child in module.children())
