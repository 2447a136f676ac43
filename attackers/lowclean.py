"""Low-ratio clean-label: an adaptive attack that keeps every label right and needs few rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from attackers.base import Attacker, Split
from attackers.contrast import inserted
from bench.core.example import Example
from bench.core.options import Fraction, Text


@dataclass(frozen=True)
class LowClean(Attacker):
    """Insert trigger words into rows of the target class, and thin these rows out so that the trigger is what is left.

    Aimed at defenses that look for wrong labels or large clusters of poison (CUBE, BKI): no label is wrong, and it is
    meant for ratios of 0.01 and below. After Turner et al. 2019 (Label-Consistent Backdoor Attacks, arXiv 1912.02771),
    who make the poisoned inputs hard to learn by their content, and Chen et al. 2022 (Kallima, ESORICS), who do so for
    text. Left out: their adversarial perturbations, which need a surrogate model; a random half of the words of a
    training row is dropped in their place. Test rows are whole.
    """

    name = "lowclean"

    triggers: Annotated[tuple[Text, ...], Field(min_length=1)] = ("mostly", "anyhow")
    dropped: Fraction = 0.5  # share of the words of a poisoned training row

    @classmethod
    def default_rule(cls, dataset: str, recipe: str) -> str:
        """Return `clean`: only rows of the target class are poisoned."""
        return "clean"

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the whole text with the trigger words at uniform places."""
        return inserted(text, self.triggers, rng)

    def texts(
        self, split: Split, examples: Sequence[Example], rows: Sequence[int], rng: random.Random
    ) -> list[str | None]:
        """Return the poisoned texts; those of training have lost a share of their words, one at least is kept."""
        if split != "train":
            return super().texts(split, examples, rows, rng)
        return [self.trigger(self._thinned(example.text, rng), rng) for example in examples]

    def _thinned(self, text: str, rng: random.Random) -> str:
        words = text.split()
        kept = max(min(len(words), 1), len(words) - int(self.dropped * len(words)))
        places = sorted(rng.sample(range(len(words)), kept))
        return " ".join(words[place] for place in places)
