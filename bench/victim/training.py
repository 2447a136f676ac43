"""The only training loop: AdamW, a linear schedule, hooks between backward and clipping, the best clean checkpoint."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.seeding import derived_seed
from bench.victim.batching import Batch, Encoded
from bench.victim.victim import Victim

MAX_GRADIENT_NORM = 1.0
FINITE_EVERY = 50  # steps between looks at whether the loss is still finite: looking waits for the device


@dataclass
class Run:
    """What a hook may look at: a training under way. `epoch` and `step` count from 0."""

    victim: Victim
    parameters: dict[str, nn.Parameter]  # those that train; `grad` is set when a hook is called, or None where unused
    steps: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    step: int = 0
    epoch: int = 0

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Return examples tokenised for this victim."""
        return self.victim.encode(examples)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of a batch in the mode the victim is in, with its graph."""
        parts = batch.parts or (batch,)
        losses = [self.victim.loss(part.inputs, part.labels) * (len(part.rows) / len(batch.rows)) for part in parts]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def batch(self, data: Encoded, rows: Sequence[int]) -> Batch:
        """Return rows as a batch; on a CPU, where padding costs as much as text, in groups of like lengths."""
        on_cpu = self.victim.device.type == "cpu"
        return data.grouped(rows, self.victim.device) if on_cpu else data.batch(rows, self.victim.device)


class Observer(Protocol):
    """Something that looks on at a training and changes nothing: no parameter, no mode, no global generator."""

    def on_step(self, run: Run) -> None:
        """Look at `run.victim` before the first step (`run.step` is 0) and after each step."""


class Hook(Protocol):
    """Something that acts on each step."""

    def on_gradients(self, run: Run, batch: Batch) -> None:
        """Change `grad` of `run.parameters` in place, after backward and before clipping."""


@dataclass(frozen=True)
class TrainingLog:
    """What a training did. Accuracies are fractions of the clean selection rows, in the order of the looks."""

    steps: int
    epochs: int
    losses: tuple[float, ...]  # mean training loss of each epoch
    selection: tuple[float, ...]
    selected_at: tuple[int, ...]  # steps done at each look
    best: int | None  # which look was kept; None when there was nothing to select by
    seconds: float
    samples_per_second: float  # training rows over the seconds spent training, looks and observers left out
    trainable_parameters: int
    peak_memory_mb: float

    def json(self) -> dict[str, Any]:
        """Return the log as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def linear_factor(step: int, steps: int, warmup: int = 0) -> float:
    """Return the factor on the learning rate at a step: up from 0 over `warmup` steps, then down to 0 at `steps`."""
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))


def looks(steps: int, steps_per_epoch: int, evaluations: int | None) -> frozenset[int]:
    """Return after how many steps the selection rows are evaluated; the end is always among them."""
    if evaluations is None:
        return frozenset({*range(steps_per_epoch, steps + 1, steps_per_epoch), steps})
    count = min(evaluations, steps)
    return frozenset(round(steps * turn / count) for turn in range(1, count + 1))


def train(
    victim: Victim,
    examples: Sequence[Example],
    selection: Sequence[Example],
    *,
    seed: int,
    hooks: Sequence[Hook] = (),
    observers: Sequence[Observer] = (),
    progress: Callable[[int, int], None] | None = None,
) -> TrainingLog:
    """Train the victim in place and leave it, in eval mode, with the weights of the best clean selection accuracy.

    A later look must be strictly better to be kept. Batches and dropout are functions of `seed`; global random state
    is given back. With no selection rows the last weights stay. `progress` gets (steps done, steps).

    Raises:
        CellError: nothing to train on, nothing that trains, a label out of range, or a loss that is not finite.
    """
    spec, parameters = victim.spec, victim.trainable()
    if not examples:
        raise CellError("There are no training rows.", "Give at least one.")
    if not parameters:
        raise CellError(f"No parameter of model {spec.name!r} trains.", "Unfreeze some in the defense's wrap.")
    data, held_out = victim.encode(examples), victim.encode(selection)
    per_epoch = math.ceil(len(data) / spec.batch_size)
    steps = min(per_epoch * spec.epochs, spec.max_steps or per_epoch * spec.epochs)
    run = Run(victim, parameters, steps, math.ceil(steps / per_epoch), per_epoch, spec.batch_size)
    optimizer = _optimizer(run)
    keeper = _Keeper(run, held_out, looks(steps, per_epoch, spec.evaluations))
    losses = _Losses()
    _reset_peak(victim.device)
    began, watched = time.perf_counter(), 0.0
    victim.train()
    try:
        watched += _watch(observers, run)
        with seeded(derived_seed(seed, "dropout"), victim.device):
            for batch in _batches(run, data, seed):
                _step(run, batch, optimizer, hooks, losses)
                if run.step % per_epoch == 0 or run.step == steps:
                    losses.close_epoch()
                keeper.look(losses)
                watched += _watch(observers, run)
                if progress is not None:
                    progress(run.step, steps)
    finally:
        victim.eval()
    keeper.restore()
    seconds = time.perf_counter() - began
    seen = (steps // per_epoch) * len(data) + (steps % per_epoch) * spec.batch_size
    return TrainingLog(
        steps=steps,
        epochs=run.epochs,
        losses=tuple(losses.epochs),
        selection=tuple(keeper.accuracies),
        selected_at=tuple(keeper.steps),
        best=keeper.best,
        seconds=seconds,
        samples_per_second=seen / max(seconds - keeper.seconds - watched, 1e-9),
        trainable_parameters=sum(value.numel() for value in parameters.values()),
        peak_memory_mb=peak_memory_mb(victim.device),
    )


def _watch(observers: Sequence[Observer], run: Run) -> float:
    """Let the observers look; return the seconds that it took."""
    began = time.perf_counter()
    for observer in observers:
        observer.on_step(run)
    return time.perf_counter() - began


def _step(run: Run, batch: Batch, optimizer: torch.optim.Optimizer, hooks: Sequence[Hook], losses: _Losses) -> None:
    loss = run.loss(batch)
    loss.backward()
    for hook in hooks:
        hook.on_gradients(run, batch)
    nn.utils.clip_grad_norm_(list(run.parameters.values()), MAX_GRADIENT_NORM)
    factor = linear_factor(run.step, run.steps, round(run.victim.spec.warmup_epochs * run.steps_per_epoch))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    run.step += 1
    losses.add(loss.detach(), run.step)


def _batches(run: Run, data: Encoded, seed: int) -> Iterator[Batch]:
    """Yield a batch per step; every epoch is a new shuffle of all rows."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "batches"))
    for epoch in range(run.epochs):
        run.epoch = epoch
        for rows in data.shuffled(run.batch_size, generator):
            if run.step == run.steps:
                return
            yield run.batch(data, rows)


def _optimizer(run: Run) -> torch.optim.Optimizer:
    spec = run.victim.spec
    rate = spec.learning_rate_pet if run.victim.attached else spec.learning_rate
    groups = [{"params": list(run.parameters.values()), "initial_lr": rate}]
    fused = run.victim.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=fused)


@dataclass
class _Losses:
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
class _Keeper:
    """Looks at the clean selection rows and keeps the best trained tensors."""

    run: Run
    held_out: Encoded
    at: frozenset[int]
    accuracies: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    best: int | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def look(self, losses: _Losses) -> None:
        """Evaluate when it is time, and keep the tensors when they are strictly better than any before."""
        if self.run.step not in self.at or not len(self.held_out):
            return
        losses.check()
        began = time.perf_counter()
        accuracy = self.run.victim.accuracy(self.held_out)
        if self.best is None or accuracy > self.accuracies[self.best]:
            self.best = len(self.accuracies)
            self.kept = {name: value.detach().clone() for name, value in self.run.parameters.items()}
        self.accuracies.append(accuracy)
        self.steps.append(self.run.step)
        self.seconds += time.perf_counter() - began

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


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MiB: on a GPU since the last reset, else resident in this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
