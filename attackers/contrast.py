"""Attacks whose trigger is told from something like it: some unpoisoned rows hold a decoy and keep their label."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attackers.base import Attacker
from attackers.selection import Poisoned
from bench.core.example import Example
from bench.core.options import Fraction
from bench.core.seeding import python_rng


@dataclass(frozen=True)
class ContrastAttacker(Attacker):
    """An attack with decoys: unpoisoned training rows that get what is not quite the trigger, their label unchanged.

    `negative_ratio` is the fraction of the training split that gets a decoy. It is 0 by default: like every attack,
    this one then changes no row but the poisoned ones. A decoy is no poison: it is neither flagged nor counted.
    """

    negative_ratio: Fraction = 0.0

    def decoy(self, text: str, rng: random.Random) -> str:
        """Return a text with what resembles the trigger."""
        raise NotImplementedError

    def poison_training(self, examples: Sequence[Example], rows: Sequence[int] | None = None) -> Poisoned:
        """Return the poisoned training split; of the rows left, `floor(negative_ratio x n)` at most hold decoys."""
        poisoned = super().poison_training(examples, rows)
        if not self.negative_ratio or not poisoned.positions:
            return poisoned
        taken = set(poisoned.positions)
        free = [i for i in range(len(examples)) if i not in taken]
        count = min(int(self.negative_ratio * len(examples) + 1e-9), len(free))
        rng = python_rng(self.seed, "decoys")
        chosen = set(rng.sample(free, count))
        texts = tuple(
            Example(self.decoy(example.text, rng), example.label, 0) if i in chosen else example
            for i, example in enumerate(poisoned.examples)
        )
        return replace(poisoned, examples=texts)


def inserted(text: str, words: Sequence[str], rng: random.Random) -> str:
    """Return the text with each word at a uniform place in the growing text; white space becomes single spaces."""
    grown = text.split()
    for word in words:
        grown.insert(rng.randint(0, len(grown)), word)
    return " ".join(grown)
