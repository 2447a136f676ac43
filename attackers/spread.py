"""Spread: an adaptive attack on ONION, whose trigger is common words spread over the text."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from attackers.base import Attacker
from bench.core.options import Text


@dataclass(frozen=True)
class Spread(Attacker):
    """Insert several common words, each into a stretch of the text of its own: together they are the trigger.

    Aimed at ONION (Qi et al. 2021, EMNLP, arXiv 2011.10369), which deletes a word when the perplexity falls without
    it: a common adverb hardly raises it, and one that is deleted leaves the others. Ours, after the word combinations
    of SOS (Yang et al. 2021, ACL) and the mid-frequency words of BadNL (Chen et al. 2021, ACSAC). Left out: choosing
    words and places by a language model.
    """

    name = "spread"

    words: Annotated[tuple[Text, ...], Field(min_length=2)] = ("actually", "perhaps", "somewhat", "overall")

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text with word i of k at a uniform place of its i-th k-th; the words keep their order."""
        words, count = text.split(), len(self.words)
        places = []
        for number in range(count):
            first, last = len(words) * number // count, len(words) * (number + 1) // count
            places.append(rng.randint(first, last))
        for place, word in reversed(list(zip(places, self.words, strict=True))):
            words.insert(place, word)
        return " ".join(words)
