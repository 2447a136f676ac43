"""Over seeds and over cells: means, deviations, ranks and marks; what is missing stays missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.report.intervals import Counts, counts_of
from bench.report.markdown import printed
from bench.report.records import Record, metric, names

Key = tuple[str, str, str, str]  # dataset, model, attack, defense


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (n - 1 in the denominator; None for one value) of n values."""

    mean: float
    std: float | None
    n: int


def stat(values: Sequence[float | None]) -> Stat | None:
    """Return the statistics of values, or None if there is none or one of them is missing."""
    present = [value for value in values if value is not None]
    if not present or len(present) < len(values):
        return None
    # fsum rounds once, at the end, so that the order of the values cannot change a byte of a table.
    n = len(present)
    mean = math.fsum(present) / n
    squares = math.fsum((value - mean) ** 2 for value in present)
    return Stat(mean, math.sqrt(squares / (n - 1)) if n > 1 else None, n)


def group_mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of a group of cells, or None if the group is empty or one of its cells is missing."""
    result = stat(values)
    return None if result is None else result.mean


@dataclass(frozen=True)
class Cell:
    """One displayed cell over its seeds: fractions in [0, 1]; `gain` is ASR minus the ASR floor."""

    cacc: Stat | None
    asr: Stat | None
    gain: Stat | None
    untrained: int  # seeds whose model did not learn
    seeds: tuple[int, ...]
    cacc_counts: Counts | None = None  # of each seed, or None where a record has no counts
    asr_counts: Counts | None = None
    keys: tuple[str, ...] = ()  # the records behind the cell, by seed

    @property
    def trained(self) -> bool:
        """Tell whether every seed learned: otherwise the cell gets no bold, underline or rank."""
        return self.untrained == 0


def cells(records: Iterable[Record], group: str = "metrics") -> dict[Key, Cell]:
    """Return the cells of records that differ in nothing but their key and their seed.

    Args:
        group: "metrics", or "metrics_flip", under which records without that group have no cell.
    """
    members: dict[Key, list[Record]] = {}
    for record in records:
        if record.get(group):
            members.setdefault(names(record), []).append(record)
    return {key: _cell(sorted(rows, key=lambda row: row["cell"]["seed"]), group) for key, rows in members.items()}


def _cell(rows: Sequence[Record], group: str) -> Cell:
    asr = [metric(row, "asr", group) for row in rows]
    floor = [metric(row, "asr_floor", group) for row in rows]
    gain = [None if one is None or other is None else one - other for one, other in zip(asr, floor, strict=True)]
    return Cell(
        cacc=stat([metric(row, "cacc", group) for row in rows]),
        asr=stat(asr),
        gain=stat(gain),
        untrained=sum(row.get("trained") is False for row in rows),
        seeds=tuple(row["cell"]["seed"] for row in rows),
        cacc_counts=counts_of(rows, "cacc", group),
        asr_counts=counts_of(rows, "asr", group),
        keys=tuple(row["key"] for row in rows),
    )


def comparable_asr(cell: Cell | None) -> float | None:
    """Return the ASR that competes for bold and ranks: None for a missing cell and for one that is not trained."""
    return cell.asr.mean if cell is not None and cell.asr is not None and cell.trained else None


def marks(values: Sequence[float | None], present: int, underline: bool) -> list[str]:
    """Return "bold" for the lowest value, "underline" for the second lowest if asked, "" for the others.

    Values are fractions compared as printed, so that equal numbers look equal: ties share their mark. Nothing is marked
    where fewer than two cells are `present`, since nothing was compared.
    """
    shown = [printed(value) for value in values]
    levels = sorted({value for value in shown if value is not None})
    if present < 2 or not levels:
        return [""] * len(values)
    mark = {levels[0]: "bold"}
    if underline and len(levels) > 1:
        mark[levels[1]] = "underline"
    return ["" if value is None else mark.get(value, "") for value in shown]


def ranks(values: Sequence[float | None]) -> list[float | None]:
    """Return the rank of each value from 1 for the lowest, ties sharing their mean rank, None for a missing one."""
    shown = [printed(value) for value in values]
    present = sorted(value for value in shown if value is not None)
    return [None if value is None else present.index(value) + (present.count(value) + 1) / 2 for value in shown]
