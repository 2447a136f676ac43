"""The ranks of one sharded training: how they meet, and which rows each of them takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

LOOPBACK = Path("/sys/class/net/lo")


@dataclass(frozen=True)
class Group:
    """This process among the ranks of a training; `device` is its own."""

    rank: int
    size: int
    device: torch.device

    def deal(self, count: int) -> range:
        """Return which of `count` rows are this rank's: a run, at most one longer than another's, of none perhaps."""
        base, more = divmod(count, self.size)
        first = self.rank * base + min(self.rank, more)
        return range(first, first + base + (self.rank < more))

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        dist.all_reduce(value)
        return value

    def most(self, value: float) -> float:
        """Return the largest of the ranks' values."""
        found = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)

    def wait(self) -> None:
        """Wait for all ranks."""
        self.most(0.0)


@contextmanager
def joined(rank: int, size: int, device: str, meeting: Path, patience: float) -> Iterator[Group]:
    """Meet the other ranks of this machine in the file `meeting`, and part from them at the end of the block.

    They talk by gloo about what lies on the CPU, by nccl about what lies on GPUs. Whoever waits more than `patience`
    seconds for another raises. After an error nobody is waited for: the process is to end.
    """
    own = torch.device(device)
    if LOOPBACK.exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK.name)  # the name of this machine may lead nowhere
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo",
        store=dist.FileStore(str(meeting), size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=patience),
    )
    yield Group(rank, size, own)
    dist.destroy_process_group()
