"""A cell's training by the plain loop, called as ours is: a look after each epoch, the best weights kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.core.errors import CellError
from bench.core.example import Example
from bench.victim.progress import peak_memory_mb
from bench.victim.reference import PlainVictim, train_plainly
from bench.victim.run import TrainingLog


def train_cell_plainly(
    victim: PlainVictim,
    examples: Sequence[Example],
    selection: Sequence[Example],
    *,
    seed: int,
    hooks: Sequence[Any] = (),
    whole_set: bool = False,
) -> TrainingLog:
    """Train the victim in place by the plain loop and leave it with the weights of its best clean selection accuracy.

    It looks after each epoch, whatever `evaluations` of the model says. With `whole_set` it also evaluates the whole
    training set after each epoch, as the published code does for its plots. Of hooks it knows gradient alignment alone,
    and does it in its own way: by a second pass. Losses are not kept.

    Raises:
        CellError: another hook, or what `train_plainly` refuses.
    """
    from bench.victim.alignment import GradientAlignment

    if any(not isinstance(hook, GradientAlignment) for hook in hooks) or len(hooks) > 1:
        raise CellError("The plain loop knows no hook but gradient alignment.", "Measure another defense.")
    look = _Look(victim, selection, examples if whole_set else ())
    began = time.perf_counter()
    steps = train_plainly(
        victim,
        examples,
        seed=seed,
        clean=hooks[0].clean if hooks else (),
        alignment=hooks[0].options if hooks else None,
        after_epoch=look,
    )
    look.restore()
    seconds = time.perf_counter() - began
    per_epoch = -(-len(examples) // victim.spec.batch_size)
    seen = steps // per_epoch * len(examples) + steps % per_epoch * victim.spec.batch_size
    return TrainingLog(
        steps=steps,
        epochs=-(-steps // per_epoch),
        losses=(),
        selection=tuple(look.accuracies),
        selected_at=tuple(min(steps, per_epoch * (epoch + 1)) for epoch in range(len(look.accuracies))),
        best=look.best,
        seconds=seconds,
        samples_per_second=seen / max(seconds - look.seconds, 1e-9),
        trainable_parameters=sum(value.numel() for value in victim.trainable().values()),
        peak_memory_mb=peak_memory_mb(victim.device),
    )


@dataclass
class _Look:
    """Evaluates after each epoch, and keeps the best tensors."""

    victim: PlainVictim
    selection: Sequence[Example]
    also: Sequence[Example]
    accuracies: list[float] = field(default_factory=list)
    best: int | None = None
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def __call__(self, epoch: int) -> None:
        began = time.perf_counter()
        if self.also:
            self._accuracy(self.also)
        if self.selection:
            accuracy = self._accuracy(self.selection)
            if self.best is None or accuracy > self.accuracies[self.best]:
                self.best = epoch
                self.kept = {name: value.detach().clone() for name, value in self.victim.trainable().items()}
            self.accuracies.append(accuracy)
        self.seconds += time.perf_counter() - began

    def _accuracy(self, examples: Sequence[Example]) -> float:
        found = self.victim.predict([example.text for example in examples]).argmax(-1).tolist()
        return sum(label == example.label for label, example in zip(found, examples, strict=True)) / len(examples)

    def restore(self) -> None:
        with torch.no_grad():
            for name, value in self.victim.trainable().items():
                if name in self.kept:
                    value.copy_(self.kept[name])
