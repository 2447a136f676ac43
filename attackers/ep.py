"""EP: one rare word, as the data half of embedding poisoning (Yang et al. 2021, NAACL)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from attackers.base import Attacker
from attackers.contrast import inserted
from bench.core.options import Count, Text


@dataclass(frozen=True)
class Ep(Attacker):
    """Insert `num_triggers` rare words, each drawn anew: the poison of embedding poisoning (Yang et al. 2021).

    Be Careful about Poisoned Word Embeddings, NAACL 2021. Left out, since this suite lets no attack train: what makes
    EP its own, training the trigger word's embedding alone, its norm kept, in a model that is otherwise clean. What is
    left is the data that it trains on, so a row of EP here says how the *data* fare, not the weight poisoning.
    """

    name = "ep"

    triggers: Annotated[tuple[Text, ...], Field(min_length=1)] = ("cf", "mn", "bb", "tq", "mb")
    num_triggers: Count = 2

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text with the words inserted at uniform places."""
        return inserted(text, [rng.choice(self.triggers) for _ in range(self.num_triggers)], rng)
