"""One training under way: what a hook may look at, and the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.core.example import Example
from bench.core.seeding import derived_seed
from bench.victim.batching import Batch, Encoded
from bench.victim.joint.layout import Source
from bench.victim.joint.passes import JointModel
from bench.victim.read_words import ReadWords
from bench.victim.victim import Victim

TRAINING, REFERENCE = "dropout", "reference dropout"  # names of the random streams of a member's two passes


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
    joint: JointModel | None = None  # the unpadded pass, where it knows the victim
    member: int = 0  # which of its members this is
    streams: dict[str, torch.Generator] = field(default_factory=dict)
    words: ReadWords | None = None  # what trains in place of the word embedding

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Return examples tokenised for `loss`."""
        data = self.victim.encode(examples)
        return data if self.words is None else self.words.renamed(data)

    def put_back(self) -> None:
        """Let the victim itself have all that was trained so far."""
        if self.words is not None:
            self.words.put_back()

    def source(self, batch: Batch) -> Source:
        """Return a batch as this member's source of a joint pass."""
        return Source(self.member, batch.data, batch.rows)

    def loss(self, batch: Batch, stream: str = REFERENCE) -> Tensor:
        """Return the mean cross-entropy of a batch in the mode the victim is in, with its graph.

        `stream` names the random numbers of dropout, so that a hook's own passes change none of the training's.
        """
        if self.joint is not None:
            generators = [self.streams[stream]] if self.victim.training else None
            return self.joint.losses([self.source(batch)], generators)[0]
        parts = batch.parts or (batch,)
        losses = [self.victim.loss(part.inputs, part.labels) * (len(part.rows) / len(batch.rows)) for part in parts]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def batch(self, data: Encoded, rows: Sequence[int]) -> Batch:
        """Return rows as a batch; on a CPU, where padding costs as much as text, in groups of like lengths."""
        on_cpu = self.victim.device.type == "cpu"
        return data.grouped(rows, self.victim.device) if on_cpu else data.batch(rows, self.victim.device)


class Hook(Protocol):
    """Something that acts on each step.

    One that says in an attribute `reads` which examples its own passes read, all of them by `run.loss`, and that looks
    at no word embedding, lets a training touch only the words of these and of its rows: `run.parameters` then holds
    their vectors in place of the embedding.
    """

    def on_gradients(self, run: Run, batch: Batch) -> None:
        """Change `grad` of `run.parameters` in place, after backward and before clipping."""


class Observer(Protocol):
    """Something that looks on at a training and changes nothing: no parameter, no mode, no global generator."""

    def on_step(self, run: Run) -> None:
        """Look at `run.victim` before the first step (`run.step` is 0) and after each step."""


class Rider(Hook, Protocol):
    """A hook whose own batch can run in the same pass as the training batch."""

    def ride(self, run: Run) -> Batch:
        """Return the batch whose loss and gradients the next `on_references` wants."""

    def on_references(self, run: Run, loss: Tensor, references: Sequence[Tensor | None]) -> None:
        """Change `grad` of `run.parameters`, given that batch's loss and its gradient of each parameter."""


@dataclass(frozen=True)
class TrainingLog:
    """What a training did. Accuracies are fractions of the clean selection rows, in the order of the looks."""

    steps: int
    epochs: int
    losses: tuple[float, ...]  # mean training loss of each epoch
    selection: tuple[float, ...]
    selected_at: tuple[int, ...]  # steps done at each look
    best: int | None  # which look was kept; None when there was nothing to select by
    seconds: float  # of a gang: this member's share
    samples_per_second: float  # training rows over the seconds spent training, looks and observers left out
    trainable_parameters: int
    peak_memory_mb: float
    gang: int = 1  # how many trained together
    unpadded: bool = False  # whether the unpadded pass was used, or transformers' own

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


def streams(seed: int, device: torch.device) -> dict[str, torch.Generator]:
    """Return the random streams of a member's dropout, functions of its seed alone."""
    made = {}
    for name in (TRAINING, REFERENCE):
        made[name] = torch.Generator(device=device).manual_seed(derived_seed(seed, name))
    return made
