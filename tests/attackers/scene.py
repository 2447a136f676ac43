"""What the tests of attackers share: rows, a small paraphrase bank, every attacker of the registry bound to a cell."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from attackers.base import Attacker
from bench.core.example import Example
from bench.core.registry import ATTACKERS, names, plugin_class

FIRST_ROW = 1000  # file rows are no positions: a test that mixes them up fails
EVERY = names(ATTACKERS)


def examples(labels: Iterable[int]) -> list[Example]:
    """Return one example per label; every text is another."""
    return [Example(f"text number {i} is here", label) for i, label in enumerate(labels)]


def file_rows(rows: Collection[Any]) -> list[int]:
    """Return the file row of each position."""
    return [FIRST_ROW + i for i in range(len(rows))]


class FakeBank:
    """Paraphrases `TEXT` as `so TEXT`, but drops some file rows; refuses a row with another row's text."""

    def __init__(self, known: list[Example], dropped: Collection[int] = (), target: int = 1) -> None:
        self.sources = {FIRST_ROW + i: example.text for i, example in enumerate(known)}
        self.known, self.dropped, self.target = known, dropped, target

    def paraphrases(self, split: str, examples: Iterable[Example], rows: Iterable[int]) -> list[str | None]:
        """Return the paraphrase of each example, None where its row is dropped."""
        found: list[str | None] = []
        for example, row in zip(examples, rows, strict=True):
            # Without file rows, as OpenBackdoor calls, the row is the position among what is asked for.
            assert self.sources.get(row, example.text) == example.text
            found.append(None if row in self.dropped else f"so {example.text}")
        return found

    def poisoned_test(self) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
        """Return what a published bank holds of the test split: non-target rows, less those dropped."""
        rows = [row for row, text in self.sources.items() if row not in self.dropped]
        kept = [row for row in rows if self.known[row - FIRST_ROW].label != self.target]
        return tuple(f"so {self.sources[row]}" for row in kept), tuple(kept)


def attacker(name: str, data: list[Example], *, seed: int = 0, **cell: Any) -> Attacker:
    """Return an attacker of the registry, bound to a cell (target 1, ratio 0.5, rule mix unless told) and a bank."""
    bank = FakeBank(data, target=cell.get("target_label", 1))
    setting = {"target_label": 1, "ratio": 0.5, "rule": "mix", "bank": bank, **cell}
    return plugin_class(ATTACKERS, name)().for_recipe("released").bound(seed=seed, **setting)
