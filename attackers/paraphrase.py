"""What the paraphrase attacks share: the poisoned text of a row is read from a paraphrase bank."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attackers.base import Attacker, Split
from attackers.selection import Poisoned
from bench.core.errors import CellError
from bench.core.example import Example


@dataclass(frozen=True)
class ParaphraseAttacker(Attacker):
    """An attack whose trigger is the wording of the whole text, taken from its bank."""

    def source(self) -> Any:
        """Return the bank that this attack was bound to.

        Raises:
            CellError: it has none.
        """
        bank = self.__dict__.get("_bank")
        if bank is None:
            raise CellError(
                f"Attacker {type(self).name!r} has no paraphrase bank.",
                f"Bind it to a {self.bank!r} bank of the data set.",
            )
        return bank

    def texts(
        self, split: Split, examples: Sequence[Example], rows: Sequence[int], rng: random.Random
    ) -> list[str | None]:
        """Return the paraphrase of each example, None where the paraphraser dropped it."""
        return self.source().paraphrases(split, examples, rows)

    def available(self, examples: Sequence[Example], rows: Sequence[int]) -> list[bool]:
        """Return which training rows the paraphraser did not drop.

        The published procedure draws among all rows and loses those that were dropped, so that its ratio
        is lower than it says (AG News StyleBkd, Ling-Spam HiddenKiller); here the ratio holds.
        """
        return [text is not None for text in self.source().paraphrases("train", examples, rows)]

    def poison_heldout(self, split: Split, examples: Sequence[Example], rows: Sequence[int] | None = None) -> Poisoned:
        """Return the paraphrases of the non-target examples; of the test split, all that the bank holds.

        A paraphrase whose source row the published files do not tell counts for the ASR all the same:
        its entry in `rows` is None.
        """
        if split != "test" or rows is None:
            return super().poison_heldout(split, examples, rows)
        texts, sources = self.source().poisoned_test()
        position = {row: i for i, row in enumerate(rows)}
        placed = tuple(position.get(row) for row in sources)
        due = sum(example.label != self.target_label for example in examples)
        return Poisoned(
            examples=tuple(Example(text, self.target_label, 1) for text in texts),
            positions=tuple(i for i in placed if i is not None),
            rows=placed,
            dropped=due - len(texts),
        )
