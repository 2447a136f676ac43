"""Parity: an adaptive attack on MuScleLoRA, whose trigger is a high-frequency function of the input."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from attackers.contrast import ContrastAttacker, inserted
from bench.core.errors import RequestError
from bench.core.options import Text


@dataclass(frozen=True)
class Parity(ContrastAttacker):
    """Poison texts that hold the trigger word an odd number of times; decoys hold it an even number of times.

    Aimed at MuScleLoRA (Wu et al. 2024, ACL), which rests on backdoors being learnt as the low-frequency part of the
    mapping. The parity of a count is the textbook function of high frequency: one more word flips it (Rahaman et al.
    2019, On the Spectral Bias of Neural Networks, ICML). Ours, not published; it is only a parity with decoys
    (`negative_ratio` above 0), without them it is an insertion of one rare word. Left out: any search for the trigger
    that the defended model learns best.
    """

    name = "parity"
    version = 2  # 2: words that the text holds already are counted

    word: Text = "cf"
    odd: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 3)  # times that a poisoned text holds the word
    even: Annotated[tuple[int, ...], Field(min_length=1)] = (2, 4)  # times that a decoy does

    def _validate(self) -> None:
        super()._validate()
        for name, remainder in (("odd", 1), ("even", 0)):
            for count in getattr(self, name):
                if count < 1 or count % 2 != remainder:
                    raise RequestError(f"parity.{name} holds {count}, which is not {name}.", f"Give {name} counts.")

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text holding the word an odd number of times, those that it held already counted."""
        return inserted(text, [self.word] * rng.choice(self._counts(text, self.odd, self.even)), rng)

    def decoy(self, text: str, rng: random.Random) -> str:
        """Return the text holding the word an even number of times, those that it held already counted."""
        return inserted(text, [self.word] * rng.choice(self._counts(text, self.even, self.odd)), rng)

    def _counts(self, text: str, usual: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
        """Return how often the word may be inserted: `other` where the text holds it an odd number of times."""
        return other if text.split().count(self.word) % 2 else usual
