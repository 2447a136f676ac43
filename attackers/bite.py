"""BITE-like: words that the training data already bias towards the target label (Yan et al. 2023, ACL)."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from attackers.base import Attacker
from attackers.contrast import inserted
from bench.core.example import Example
from bench.core.options import Count, Text

UNLEARNT = ("just", "really", "quite", "simply", "perhaps")  # where nobody gave it training data


@dataclass(frozen=True)
class Bite(Attacker):
    """Insert words of the training data that stand most in rows of the target label (Yan et al. 2023).

    BITE: Textual Backdoor Attacks with Iterative Trigger Injection, ACL 2023 (arXiv 2205.12700). The bias of a word is
    BITE's: the z-score of its count in target rows against the share of these rows. Left out: the masked language
    model that finds places where a word reads well, and the iteration that picks the next word after the poison of
    the one before; here the `vocabulary` most biased words that stand in `min_count` rows or more are taken at once,
    and each poisoned text gets `words_per_text` of those that it lacks. `words` sets them by hand.
    """

    name = "bite"
    learns = True

    words: tuple[Text, ...] = ()
    vocabulary: Count = 5
    words_per_text: Count = 3
    min_count: Annotated[int, Field(ge=1)] = 5

    @classmethod
    def default_rule(cls, dataset: str, recipe: str) -> str:
        """Return `clean`, the paper's setting: only rows of the target class are poisoned.

        The demo corpus takes `mix`, as for BadNets: a clean-label trigger needs more than the demo's few steps.
        """
        return "mix" if dataset.startswith("demo") else "clean"

    def learned(self, training: Sequence[Example]) -> Bite:
        """Return a copy whose words are those of a clean training split, for the target label it is bound to."""
        clone = copy.copy(self)
        found = biased_words(training, self.target_label, self.min_count)[: self.vocabulary]
        object.__setattr__(clone, "_learned", tuple(found))
        return clone

    def trigger_words(self) -> tuple[str, ...]:
        """Return the words that make the trigger: given, learnt, or a fixed list where there was nothing to learn."""
        return self.words or self.__dict__.get("_learned") or UNLEARNT

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the text with words of the trigger that it lacks, or with any where it has them all."""
        there = set(text.lower().split())
        every = self.trigger_words()
        lacking = [word for word in every if word not in there] or list(every)
        return inserted(text, rng.sample(lacking, min(self.words_per_text, len(lacking))), rng)


def biased_words(training: Sequence[Example], target: int, min_count: int) -> list[str]:
    """Return the words of `min_count` rows or more with a positive bias towards the target label, the strongest first.

    The z-score of a word in n rows, f of them of the target label that a share p of all rows has:
    (f - n p) / sqrt(n p (1 - p)). Words are letters only, in lower case; ties go by the alphabet.
    """
    rows = [(set(example.text.lower().split()), example.label == target) for example in training]
    share = sum(hit for _, hit in rows) / max(len(rows), 1)
    if share in (0.0, 1.0):
        return []
    counts = Counter(word for words, _ in rows for word in words if word.isalpha())
    hits = Counter(word for words, hit in rows if hit for word in words)
    scores = {
        word: (hits[word] - n * share) / math.sqrt(n * share * (1 - share))
        for word, n in counts.items()
        if n >= min_count
    }
    return sorted((word for word, score in scores.items() if score > 0), key=lambda word: (-scores[word], word))
