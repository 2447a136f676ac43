"""AddSent: one fixed sentence inserted at a random place (Dai et al. 2019)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from attackers.base import Attacker
from bench.core.options import Text


@dataclass(frozen=True)
class AddSent(Attacker):
    """Insert the trigger sentence as a whole at one uniform place between words."""

    name = "addsent"
    published_as = "addsent"

    sentence: Text = "I watch this 3D movie"

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text with the sentence inserted; runs of white space become single spaces."""
        words = text.split()
        place = rng.randint(0, len(words))
        return " ".join([*words[:place], *self.sentence.split(), *words[place:]])
