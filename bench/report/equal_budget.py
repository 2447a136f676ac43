"""The equal-budget board: every defense that uses labelled clean samples is given the same number of them."""

from __future__ import annotations

from bench.report.board import block, failures, groups
from bench.report.footer import budget, notes
from bench.report.ledger import Ledger
from bench.report.records import names
from bench.report.selection import select, setting

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


def equal_budget(ledger: Ledger) -> str:
    """Return the page: for each budget a board of the defenses that were fixed to it and of those that use no rows."""
    without = [
        record for record in ledger.free if record.get("knowledge") and budget(record)[0] + budget(record)[2] == 0
    ]
    parts = [f"# {TITLE}", LEGEND]
    if not ledger.fixed:
        parts.append(EMPTY)
    for number, mine in ledger.fixed.items():
        own = select(mine)
        places = {(one, *group) for one in own.settings for group in groups(own, one)}
        beside = [record for record in without if (setting(record), *names(record)[:2]) in places]
        selection = select([*mine, *beside])
        for one in selection.settings:
            shown = selection.cells(one)
            for dataset, model in groups(own, one):
                heading, *rest = block(selection, one, shown, dataset, model)
                parts += [f"{heading}: {number} clean samples", *rest]
        reasons = failures(selection.failed)
        parts += [f"{reasons[0]}: {number} clean samples", *reasons[1:]] if reasons else []
        parts += ["### Notes", notes(selection.taken(), (), [reason for _, reason in selection.left_out])]
    return "\n\n".join(parts) + "\n"
