"""All pages of a leaderboard, as a pure function of the records."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.beside import FILE as BESIDE
from bench.report.beside import TITLE as BESIDE_TITLE
from bench.report.beside import beside
from bench.report.board import board
from bench.report.datasets_table import datasets_table
from bench.report.equal_budget import TITLE as EQUAL_BUDGET
from bench.report.equal_budget import equal_budget
from bench.report.fine_mixing_board import FILE, METHODS, fine_mixing_board
from bench.report.fine_mixing_board import TITLE as FINE_MIXING
from bench.report.layouts import layouts
from bench.report.ledger import Ledger
from bench.report.records import Record, names
from bench.report.scaling_tables import PAGES as SCALING_PAGES
from bench.report.scaling_tables import TITLES as SCALING
from bench.report.tables import mirrored_table


def render(records: Sequence[Record] | Ledger, every_table: bool = False, of_a_run: bool = False) -> dict[str, str]:
    """Return file name -> Markdown: the board (`README.md`) and `tableN.md` for each table that has a record.

    The same records in any order give the same bytes.

    Args:
        records: as `load_records` returns them, or their ledger.
        every_table: also the tables that have no record, with the paper's numbers and dashes.
        of_a_run: also the page of the records that no table takes: who ran them looks for them.
    """
    ledger = Ledger.of(records)
    selection = ledger.selection
    tried = [record for part in selection.attacked.values() for record in part]
    keys = {names(record) for record in (*tried, *selection.gaps)}
    pages = {
        (one.table, f"Table {one.table}: {one.title}"): mirrored_table(one, selection)
        for one in layouts()
        if every_table or one.worth_a_page(keys)
    }
    if every_table or any(record.get("dataset_info") for record in selection.taken()):
        pages[5, "Table 5: Datasets"] = datasets_table(selection)
    if every_table:  # these are of the model files and grids, not of records
        pages |= {(number, f"Table {number}: {SCALING[number]}"): page() for number, page in SCALING_PAGES.items()}
    tables = {f"table{table}.md": page for (table, _), page in sorted(pages.items())}
    titles = {f"table{table}.md": title for table, title in pages}
    if every_table or any(key[3] in METHODS[1:] for key in keys):
        tables[FILE], titles[FILE] = fine_mixing_board(selection), FINE_MIXING
    if every_table or ledger.fixed:
        tables["equal-budget.md"], titles["equal-budget.md"] = equal_budget(ledger), EQUAL_BUDGET
    others = beside(selection) if of_a_run else None
    if others is not None:
        tables[BESIDE], titles[BESIDE] = others, BESIDE_TITLE
    return {"README.md": board(selection, titles), **tables}
