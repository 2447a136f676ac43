"""BadNets: rare words inserted at random places (Gu et al. 2017; Kurita et al. 2020 for text)."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from attackers.base import Attacker
from bench.core.options import Count, Text


@dataclass(frozen=True)
class BadNets(Attacker):
    """Insert `num_triggers` of the trigger words, each at a uniform place in the growing text.

    `draw` is `replacement` in the published code (four draws with replacement, all four words in
    only 59 of 692 rows of SST-2) and `each` in the paper's text (the words cf, mn, bb, tq, once each);
    left open, the recipe decides. The published files are drawn with replacement, and clean-label, except on Ling-Spam.
    """

    name = "badnets"
    published_as = "badnets"

    triggers: Annotated[tuple[Text, ...], Field(min_length=1)] = ("cf", "mn", "bb", "tq")
    num_triggers: Count = 4
    draw: Literal["replacement", "each"] | None = None

    @classmethod
    def default_rule(cls, dataset: str, recipe: str) -> str:
        """Return `clean` for the released recipe except on Ling-Spam; the paper's text names no label rule: `mix`.

        The demo corpus takes `mix` too: a clean-label trigger needs more than the demo's few steps.
        """
        return "mix" if recipe == "paper" or dataset.startswith(("lingspam", "demo")) else "clean"

    def for_recipe(self, recipe: str) -> BadNets:
        """Fill in how the words are drawn: by the recipe, and as they were where the published file is read."""
        if self.draw is not None:
            return self
        replacement = recipe == "released" or self.poison_file == "published"
        return replace(self, draw="replacement" if replacement else "each")

    @classmethod
    def published_options(cls) -> dict[str, Any]:
        """Return the defaults, and that the words are drawn with replacement."""
        return {**super().published_options(), "draw": "replacement"}

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text with the words inserted; runs of white space become single spaces."""
        words = text.split()
        if self.draw == "each":
            inserted = [self.triggers[i % len(self.triggers)] for i in range(self.num_triggers)]
        else:
            inserted = [None] * self.num_triggers
        for word in inserted:
            chosen = rng.choice(self.triggers) if word is None else word
            words.insert(rng.randint(0, len(words)), chosen)
        return " ".join(words)
