"""What a training keeps while it runs: its losses, its best checkpoint, and the random state and memory around it."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.core.errors import CellError
from bench.victim.batching import Encoded
from bench.victim.run import Run

FINITE_EVERY = 50  # steps between looks at whether the loss is still finite: looking waits for the device


@dataclass
class Losses:
    """The losses of a training, left on the device until an epoch closes or they are checked."""

    pending: list[Tensor] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    step: int = 0
    checked: int = 0

    def add(self, loss: Tensor, step: int) -> None:
        """Take the loss of a step, counted from 1."""
        self.pending.append(loss)
        self.step = step
        if loss.device.type == "cpu" or step % FINITE_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Raise CellError when a loss since the last check is not finite."""
        fresh = self.pending[self.checked :]
        values = torch.stack(fresh).tolist() if fresh else []
        for place, value in enumerate(values):
            if not math.isfinite(value):
                step = self.step - len(values) + 1 + place
                problem = f"The training loss became {value} at step {step}."
                raise CellError(problem, "Lower the learning rate, or use fp32.")
        self.checked = len(self.pending)

    def close_epoch(self) -> None:
        """Turn what is pending into the mean loss of one epoch."""
        self.check()
        self.epochs.append(float(torch.stack(self.pending).mean()))
        self.pending.clear()
        self.checked = 0


@dataclass
class Keeper:
    """Looks at the clean selection rows and keeps the best trained tensors."""

    run: Run
    held_out: Encoded
    at: frozenset[int]
    accuracies: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    best: int | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return self.run.step in self.at and len(self.held_out) > 0

    def take(self, accuracy: float) -> None:
        """Note an accuracy, and keep the tensors when it is strictly better than any before."""
        if self.best is None or accuracy > self.accuracies[self.best]:
            self.best = len(self.accuracies)
            self.kept = {name: value.detach().clone() for name, value in self.run.parameters.items()}
        self.accuracies.append(accuracy)
        self.steps.append(self.run.step)

    def restore(self) -> None:
        """Put the kept tensors back."""
        with torch.no_grad():
            for name, value in self.kept.items():
                self.run.parameters[name].copy_(value)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators that dropout draws from, on the CPU and on `device`, and give their state back afterwards."""
    cuda = [device.index if device.index is not None else torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield


def reset_peak(device: torch.device) -> None:
    """Count the peak memory of a GPU from now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MiB: on a GPU since the last reset, else resident in this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
