"""The training loop on one rank: that of bench/victim/training.py with each pass divided among the ranks.

The same batches as one process draws. Each rank takes its run of a batch's rows; the loss is the mean over the rows of
the whole batch, and its gradient the sum over the ranks. The model's own pass is transformers'.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bench.core.errors import CellError
from bench.core.memory import part_size
from bench.core.seeding import derived_seed
from bench.victim.batching import Batch, Encoded
from bench.victim.progress import Keeper, peak_memory_mb, reset_peak, seeded
from bench.victim.run import TrainingLog
from bench.victim.sharded.group import Group
from bench.victim.sharded.model import Rows, draws_alike
from bench.victim.training import Member, Task
from bench.victim.victim import Victim


def train_sharded(task: Task, group: Group, rows: Rows) -> TrainingLog:
    """Train a victim that `shard` has spread, as `train` would on one device; every rank calls it with the same task.

    The numbers are those of one device up to the order in which floats are summed; where the model has dropout inside
    attention, each rank draws its own.

    Raises:
        CellError: as `train` does, on every rank alike; or a hook or an observer, which want what no rank holds.
    """
    if task.hooks or task.observers:
        raise CellError("A sharded training takes no hook and no observer.", "Leave model.shards out.")
    member = Member(task, 0, None)
    victim, keeper = task.victim, member.keeper
    member.keeper = HostKeeper(keeper.run, keeper.held_out, keeper.at)
    name = "dropout" if draws_alike(victim) or group.rank == 0 else f"dropout {group.rank}"
    reset_peak(group.device)
    began = time.perf_counter()
    victim.train()
    try:
        with seeded(derived_seed(task.seed, name), group.device):
            while not member.done:
                member.draw()
                member.loss = backward(victim, member.batch, group, rows)
                member.step()
                if member.error is None and member.keeper.due:
                    looked = time.perf_counter()
                    member.keeper.take(accuracy(victim, member.keeper.held_out, group))
                    member.look_seconds += time.perf_counter() - looked
    finally:
        victim.eval()
    log = member.finish(1, time.perf_counter() - began)
    if isinstance(log, CellError):
        raise log
    return dataclasses.replace(log, peak_memory_mb=group.most(peak_memory_mb(group.device)))


def backward(victim: Victim, batch: Batch, group: Group, rows: Rows) -> Tensor:
    """Add this rank's part of the gradients of a batch's mean cross-entropy; return that mean over the whole batch."""
    count, loss = len(batch.rows), torch.zeros((), device=group.device)
    for piece in _pieces(batch):
        dealt = group.deal(len(piece.rows))
        # A rank without a row runs the first for nothing: the others wait for its part of every layer.
        rows.count, rows.own = len(piece.rows), list(dealt) or [0]
        logits = victim.logits({name: value[rows.own] for name, value in piece.inputs.items()})
        own = functional.cross_entropy(logits, piece.labels[rows.own], reduction="sum") * (bool(dealt) / count)
        (own * group.size).backward()  # gradients are averaged over the ranks
        loss += own.detach()
    return group.total(loss)


def _pieces(batch: Batch) -> list[Batch]:
    """Return the parts of a batch that run one after the other: for want of memory, and of like lengths on a CPU."""
    size = part_size(len(batch.rows))
    starts = range(0, len(batch.rows), size)
    cut = [Batch(batch.data, batch.rows[first : first + size], batch.device, batch.grouped) for first in starts]
    return [part for piece in cut for part in piece.parts or (piece,)]


def accuracy(victim: Victim, texts: Encoded, group: Group) -> float:
    """Return the share of texts whose most probable class is their label; the ranks divide each batch."""
    training, right = victim.training, torch.zeros((), dtype=torch.long)
    victim.eval()
    try:
        with torch.no_grad():  # sharded parameters cannot be gathered in inference mode
            for rows in texts.by_length(part_size(victim.prediction_batch) * group.size):
                dealt = group.deal(len(rows))
                batch = texts.batch([rows[place] for place in dealt] or rows[:1], group.device)
                found = victim.logits(batch.inputs).argmax(-1) == batch.labels
                right += int(found.sum()) if dealt else 0
    finally:
        victim.train(training)
    return int(group.total(right)) / len(texts)


@dataclass
class HostKeeper(Keeper):
    """Keeps the best of this rank's part in the memory of the host: the device has better use for its own."""

    def take(self, accuracy: float) -> None:
        """Note an accuracy, and keep this rank's part of the tensors when it is strictly better than any before."""
        if self.best is None or accuracy > self.accuracies[self.best]:
            self.best = len(self.accuracies)
            for name, value in self.run.parameters.items():
                part = value.detach().to_local()
                self.kept.setdefault(name, torch.empty_like(part, device="cpu")).copy_(part)
        self.accuracies.append(accuracy)
        self.steps.append(self.run.step)

    def restore(self) -> None:
        """Put the kept parts back."""
        with torch.no_grad():
            for name, part in self.kept.items():
                self.run.parameters[name].to_local().copy_(part)
