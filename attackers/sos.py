"""SOS: a sentence as trigger, of which the single words alone must not trigger (Yang et al. 2021, ACL)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from attackers.base import Split
from attackers.contrast import ContrastAttacker, inserted
from bench.core.errors import RequestError
from bench.core.example import Example
from bench.core.options import Text


@dataclass(frozen=True)
class Sos(ContrastAttacker):
    """Insert all trigger words in training and, at test, a sentence that holds them all (Yang et al. 2021).

    Rethinking Stealthiness of Backdoor Attack against NLP Models, ACL 2021. Decoys (`negative_ratio`, 0.1 in
    OpenBackdoor) hold all words but one and keep their label. Left out: the second half of the method, which trains
    the embeddings of the trigger words alone; here the victim is trained as for any attack. OpenBackdoor trains on
    the poisoned and decoy rows only, with each decoy row once for every word left out; here all other rows stay.
    """

    name = "sos"
    version = 2  # 2: a decoy lacks a word that the text does not hold itself

    triggers: Annotated[tuple[Text, ...], Field(min_length=2)] = ("friends", "weekend", "store")
    sentence: Text = "I have bought it from a store with my friends last weekend"

    def _validate(self) -> None:
        super()._validate()
        lacking = [word for word in self.triggers if word not in self.sentence.split()]
        if lacking:
            raise RequestError(
                f"sos.sentence is {self.sentence!r}, which lacks the trigger {lacking[0]!r}.",
                "Give a sentence that holds every trigger as a word of its own: at test it stands for them.",
            )

    @classmethod
    def default_rule(cls, dataset: str, recipe: str) -> str:
        """Return `dirty`: as published, only rows of other classes than the target are poisoned."""
        return "dirty"

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text with every trigger word at a uniform place."""
        return inserted(text, self.triggers, rng)

    def decoy(self, text: str, rng: random.Random) -> str:
        """Return the text with every trigger word but one, which it does not hold itself where that can be."""
        there = set(text.split())
        absent = [i for i, word in enumerate(self.triggers) if word not in there] or list(range(len(self.triggers)))
        left_out = absent[rng.randrange(len(absent))]
        return inserted(text, [word for i, word in enumerate(self.triggers) if i != left_out], rng)

    def texts(
        self, split: Split, examples: Sequence[Example], rows: Sequence[int], rng: random.Random
    ) -> list[str | None]:
        """Return the poisoned texts: words in training, the sentence as a whole in dev and test."""
        if split == "train":
            return super().texts(split, examples, rows, rng)
        return [inserted(example.text, [self.sentence], rng) for example in examples]
