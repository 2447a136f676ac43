"""The cells of a mirrored table as data: ours, the paper's, the difference, interval, rank, and where measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.report.aggregate import Cell, Key, Stat
from bench.report.footer import budget
from bench.report.intervals import Counts, interval
from bench.report.layouts import Layout
from bench.report.paper import published
from bench.report.records import Record
from bench.report.selection import Selection, Setting
from bench.report.tables import asr_ranks, blocks, settings_of
from bench.report.values import difference

Entry = dict[str, Any]


def entries(layout: Layout, selection: Selection) -> list[Entry]:
    """Return every cell of a table in the order of its page; rates are percent, a missing value is None.

    A detector has a second entry under `flag_rule` "flip", beside "reject"; the others have the rule None.
    """
    by_key = {record["key"]: record for record in selection.taken()}
    return [entry for one in settings_of(selection) for entry in _entries(layout, selection, one, by_key)]


def _entries(layout: Layout, selection: Selection, one: Setting, by_key: Mapping[str, Record]) -> Iterator[Entry]:
    shown, flipped = selection.cells(one), selection.cells(one, "metrics_flip")
    for block in blocks(layout, selection, one):
        place = asr_ranks(layout, block, shown)
        for dataset, model in block.groups:
            for attack in layout.attacks:
                for defense in layout.defenses:
                    key = (dataset, model, attack, defense)
                    rule = "reject" if key in flipped else None
                    yield _entry(layout, one, key, shown.get(key), rule, place[key], by_key)
                    if key in flipped:
                        yield _entry(layout, one, key, flipped[key], "flip", None, by_key)


def _entry(
    layout: Layout,
    one: Setting,
    key: Key,
    cell: Cell | None,
    rule: str | None,
    rank: float | None,
    by_key: Mapping[str, Record],
) -> Entry:
    paper = published(layout.table, *key) or (None, None)
    records = [by_key[name] for name in cell.keys] if cell else []
    checks = layout.checks.get(key[3])
    return {
        "table": layout.table,
        "recipe": one[0],
        "precision": one[1],
        **dict(zip(("dataset", "model", "attack", "defense"), key, strict=True)),
        **({} if checks is None else dict(zip(("ms", "lr", "ga"), checks, strict=True))),
        "flag_rule": rule,
        "seeds": list(cell.seeds) if cell else [],
        "trained": cell.trained if cell else None,
        "cacc": measure(cell and cell.cacc, cell and cell.cacc_counts, paper[0]),
        "asr": measure(cell and cell.asr, cell and cell.asr_counts, paper[1]),
        "asr_minus_floor": _percent(cell.gain.mean if cell and cell.gain else None),
        "asr_rank": rank,
        "clean_samples": [list(parts) for parts in sorted({budget(record) for record in records})],
        "records": list(cell.keys) if cell else [],
        **{f"{name}s": _environment(records, name) for name in ("device", "commit", "date")},
    }


def measure(result: Stat | None, counts: Counts | None, paper: float | None) -> Entry:
    """Return ours with its deviation and 95 % interval, the paper's and the difference, all in percent."""
    low, high = interval(counts) if counts and result else (None, None)
    return {
        "ours": _percent(result and result.mean),
        "deviation": _percent(result and result.std),
        "low": _percent(low),
        "high": _percent(high),
        "paper": paper,
        "difference": None if paper is None else difference(result, paper),
    }


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * fraction, 4) + 0.0  # no -0.0


def _environment(records: Sequence[Record], name: str) -> list[str]:
    found = {(record.get("environment") or {}).get(name) for record in records}
    return sorted(str(value) for value in found if value)
