"""Node rank, master address and the TCP store shared by nodes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch._C._distributed_c10d import TCPStore

from ...errors import RankError, RequestError

PATIENCE_SECONDS = 1800.0  # for machines that come later, or have to prepare their data
POLL_SECONDS = 0.2
VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Node:
    """A machine among those that train one run.

    Attributes:
        number: Of the machine; the first, 0, records the run.
        count: How many machines there are.
        address: Of the first.
        port: That it listens on there; 0 takes any that is free.
    """

    number: int = 0
    count: int = 1
    address: str = "127.0.0.1"
    port: int = 0

    @classmethod
    def here(cls, nodes: int) -> Node:
        """As SLURM's `srun` says, or else the variables that torch and Lightning know.

        Raises:
            RequestError: Nothing says where this machine stands.
        """
        if nodes == 1:
            return cls()
        if "SLURM_STEP_ID" in os.environ and "NODE_RANK" not in os.environ:
            try:
                slurm = SLURMEnvironment(auto_requeue=False)
            except RuntimeError as error:
                raise RequestError(str(error)) from error
            return cls(slurm.node_rank(), nodes, slurm.main_address, slurm.main_port)
        absent = [name for name in VARIABLES if name not in os.environ]
        if absent:
            raise RequestError(
                f"trainer.num_nodes={nodes} needs {' and '.join(absent)} in the environment: on each machine "
                "the same command with NODE_RANK=0, 1, ..., the first one's address as MASTER_ADDR, and a "
                "free port there as MASTER_PORT. Under SLURM, srun with one task a node says all of it"
            )
        try:
            node, port = int(os.environ["NODE_RANK"]), int(os.environ["MASTER_PORT"])
        except ValueError as error:
            raise RequestError(f"NODE_RANK and MASTER_PORT must be numbers: {error}") from error
        if not 0 <= node < nodes:
            raise RequestError(
                f"NODE_RANK must lie in 0 to {nodes - 1} for trainer.num_nodes={nodes}, got {node}"
            )
        return cls(node, nodes, os.environ["MASTER_ADDR"], port)

    def environment(self, local_rank: int, devices: int, port: int) -> dict[str, str]:
        """Where one of this machine's processes stands among all, for Lightning and torch."""
        visible = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
        return {
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(self.count * devices),
            "NODE_RANK": str(self.number),
            "LOCAL_RANK": str(local_rank),
            **visible,
        }

    # Among machines -----------------------------------------------------------------------------

    def open_board(self) -> TCPStore:
        """Where the machines leave word for each other; the first one's process keeps it.

        Its port stays taken from here on: rank 0's own store, in the same process, is this one again.

        Raises:
            RankError: The first machine does not answer.
        """
        if self.number == 0:
            return TCPStore(
                self.address, self.port, is_master=True, wait_for_workers=False, multi_tenant=True
            )
        where = f"the first machine ({self.address}:{self.port})"
        await_until(self._answers, f"{where} does not answer")  # torch's own waiting can't be interrupted
        return TCPStore(self.address, self.port, is_master=False)

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def others_ready(self, board: TCPStore) -> None:
        """Waits for the other machines' processes.

        Raises:
            RankError: One failed, or does not come.
        """

        def ready() -> bool:
            self.check_others(board)
            return all(board.check([f"ready/{node}"]) for node in range(1, self.count))

        await_until(ready, "the other machines do not come, each with this command and its NODE_RANK")

    def check_others(self, board: TCPStore) -> None:
        """Looks whether another machine has reported a failure.

        Raises:
            RankError: One has.
        """
        for node in range(1, self.count):
            if board.check([f"failed/{node}"]):
                raise RankError(f"machine {node} of {self.count}: {board.get(f'failed/{node}').decode()}")


def await_until(condition: Callable[[], bool], complaint: str) -> None:
    """Waits until a condition holds, for half an hour at most.

    Raises:
        RankError: It does not hold by then; the message is the complaint.
    """
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > ends_at:
            raise RankError(f"{complaint} (waited {PATIENCE_SECONDS / 60:.0f} minutes)")
        time.sleep(POLL_SECONDS)
