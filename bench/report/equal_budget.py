"""The equal-budget board: every defense that uses labelled clean samples is given the same number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.aggregate import cells
from bench.report.board import block, groups
from bench.report.footer import budget, notes
from bench.report.records import Record, names
from bench.report.selection import select

TITLE = "Equal budget"
LEGEND = (
    "Each defense that uses labelled clean samples for its method or its thresholds is given exactly the number in the "
    "heading (option `clean_budget`; half for each where it does both); those that use none stand beside them. "
    "Checkpoints are chosen by other rows, the same for every defense. Columns as on the [board](README.md)."
)
EMPTY = (
    "No record has a fixed clean budget yet: `python -m bench run --grid equal-budget` makes them, for 96 rows, and "
    "`--set defense.clean_budget=N` for N."
)


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
    free = [record for record in records if clean_budget(record) is None]
    fixed = sorted({number for record in records if (number := clean_budget(record)) is not None})
    return free, {number: [record for record in records if clean_budget(record) == number] for number in fixed}


def equal_budget(records: Sequence[Record]) -> str:
    """Return the page: for each budget a board of the defenses that were fixed to it and of those that use no rows."""
    free, fixed = split(records)
    without = [record for record in free if record.get("knowledge") and budget(record)[0] + budget(record)[2] == 0]
    parts = [f"# {TITLE}", LEGEND]
    if not fixed:
        parts.append(EMPTY)
    for number, mine in fixed.items():
        places = {names(record)[:2] for record in mine}
        selection = select([*mine, *(record for record in without if names(record)[:2] in places)])
        for one in selection.settings:
            shown = cells(selection.attacked.get(one, ()))
            for dataset, model in groups(select(mine), one):
                heading, *rest = block(selection, one, shown, dataset, model)
                parts += [f"{heading}: {number} clean samples", *rest]
        parts += ["### Notes", notes(selection.taken(), (), [reason for _, reason in selection.left_out])]
    return "\n\n".join(parts) + "\n"
