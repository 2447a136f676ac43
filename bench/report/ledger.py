"""The records behind a leaderboard, sorted once for all its pages and formats."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.records import Record, distinct
from bench.report.selection import POISON_RATIO, Selection, select, selections


class Ledger:
    """Records, each cell once, and what pages show of them; every part is made when it is first asked for."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    @classmethod
    def of(cls, records: Sequence[Record] | Ledger) -> Ledger:
        """Return the ledger of some records; a ledger is its own."""
        return records if isinstance(records, cls) else cls(records)

    @functools.cached_property
    def unique(self) -> list[Record]:
        """Return the records sorted by key, each cell once."""
        return distinct(self.records)[0]

    @functools.cached_property
    def _split(self) -> tuple[list[Record], dict[int, list[Record]]]:
        return split(self.records)

    @property
    def free(self) -> list[Record]:
        """Return the records whose defense was not fixed to a number of clean samples."""
        return self._split[0]

    @property
    def fixed(self) -> dict[int, list[Record]]:
        """Return the records of each fixed number of clean samples, smallest first."""
        return self._split[1]

    @functools.cached_property
    def selection(self) -> Selection:
        """Return what the tables show of the free records."""
        return select(self.free)

    @functools.cached_property
    def by_ratio(self) -> dict[float, Selection]:
        """Return what is shown of the free records at each poison ratio that a cell was run at, the lowest first."""
        found = {record["cell"]["poison_ratio"] for record in self.free if record["status"] == "ok"}
        others = selections(self.free, sorted(found - {0, POISON_RATIO}))
        return {ratio: self.selection if ratio == POISON_RATIO else others[ratio] for ratio in sorted(found - {0})}


def clean_budget(record: Record) -> int | None:
    """Return the clean budget that a cell's defense, or a link of it, was fixed to; None where there is none."""
    found = set(_budgets(record["cell"]["defense"].get("options") or {}))
    return max(found) if found else None


def _budgets(content: Any) -> list[int]:
    if isinstance(content, Mapping):
        own = content.get("clean_budget")
        return [*([own] if isinstance(own, int) else []), *(n for value in content.values() for n in _budgets(value))]
    if isinstance(content, list):
        return [number for value in content for number in _budgets(value)]
    return []


def split(records: Sequence[Record]) -> tuple[list[Record], dict[int, list[Record]]]:
    """Return the records without a fixed budget, and those of each budget, smallest first."""
    found: dict[int | None, list[Record]] = defaultdict(list)
    for record in records:
        found[clean_budget(record)].append(record)
    return found.pop(None, []), {number: found[number] for number in sorted(found)}
