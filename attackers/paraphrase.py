"""What the paraphrase attacks share: the poisoned text of a row is read from a paraphrase bank."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attackers.base import Attacker, Split
from attackers.selection import Poisoned
from bench.core.errors import CellError, DataError, RequestError
from bench.core.example import Example
from bench.core.options import Text, added
from bench.core.paths import is_name


@dataclass(frozen=True)
class ParaphraseAttacker(Attacker):
    """An attack whose trigger is the wording of the whole text, taken from its bank: the published one, or a file that
    `bench data paraphrase` made, which serves any data set and target label.

    Raises:
        RequestError: a file beside the published poison, or a digest without a file.
    """

    bank_file: Text | None = added(None)
    bank_made_by: Text | None = added(None)  # digest of the file's paraphraser, filled in when the run is planned

    def _validate(self) -> None:
        super()._validate()
        if self.bank_made_by and not self.bank_file:
            raise RequestError(f"{self.name}.bank_made_by is set without bank_file.", "Leave it out.")
        if self.bank_file and not is_name(self.bank_file):
            raise RequestError(f"{self.name}.bank_file is {self.bank_file!r}: no file can have this name.", "Name one.")
        if self.bank_file and self.poison_file == "published":
            raise RequestError(f"{self.name} has both a bank_file and the published poison file.", "Choose one.")

    def for_recipe(self, recipe: str) -> ParaphraseAttacker:
        """Return this attack with the digest of its bank's paraphraser; a bank that cannot be read fails its cells."""
        if self.bank_file is None or self.bank_made_by is not None:
            return self
        from bench.data.journal import identity_digest, read_bank

        try:
            found = identity_digest(read_bank(Path(self.bank_file)).made_by)
        except DataError:
            found = f"not readable: {Path(self.bank_file).name}"
        return replace(self, bank_made_by=found)

    def identity(self) -> dict[str, Any]:
        """Return the options; of a bank its paraphraser, not the place of the file."""
        content = super().identity()
        content.pop("bank_file", None)
        return content

    def place(self) -> dict[str, Any]:
        """Return where the bank lies, as options."""
        return {} if self.bank_file is None else {"bank_file": self.bank_file}

    def pins(self) -> dict[str, str]:
        """Return the sha256 of the bank."""
        from bench.data.files import sha256

        try:
            there = self.bank_file is not None and Path(self.bank_file).is_file()
            return {"bank": sha256(Path(self.bank_file).read_bytes())} if there else {}
        except OSError:
            return {}  # its cells fail, with the reason

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
