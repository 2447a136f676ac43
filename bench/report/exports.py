"""Every page in other formats: LaTeX (booktabs), CSV and JSON, as pure functions of the records."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.report.entries import Entry, entries
from bench.report.latex import latex
from bench.report.layouts import layouts
from bench.report.ledger import Ledger
from bench.report.paper import SOURCE
from bench.report.reading import Grid, Heading, Part, Text, plain, read_page
from bench.report.records import Record

FOLDER = "data"
_FORMULA = re.compile(r"(?!-[\d.,]+$)[=+\-@\t\r]")  # a negative number is none


def exports(records: Sequence[Record] | Ledger, pages: Mapping[str, str]) -> dict[str, str]:
    """Return file name -> text: `data/NAME.tex`, `.csv` and `.json` of each page (file name -> Markdown).

    The CSV and JSON of a mirrored table hold its cells as numbers, those of another page what it displays.
    """
    selection = Ledger.of(records).selection
    cells = {f"table{one.table}": entries(one, selection) for one in layouts()}
    files = {}
    for name, page in pages.items():
        stem = "board" if name == "README.md" else name.removesuffix(".md")
        parts = read_page(page)
        files[f"{FOLDER}/{stem}.tex"] = latex(parts)
        rows = [flat(entry) for entry in cells[stem]] if stem in cells else list(displayed(parts))
        files[f"{FOLDER}/{stem}.csv"] = csv_text(rows)
        content = _content(parts, cells.get(stem))
        files[f"{FOLDER}/{stem}.json"] = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return files


def displayed(parts: Sequence[Part]) -> Iterator[Entry]:
    """Yield what the tables of a page display, one dict per cell: section, row, column and text."""
    section = ""
    for part in parts:
        if isinstance(part, Heading):
            section = plain(part.line)
        elif isinstance(part, Grid):
            headers = [plain(header) for header in part.headers]
            for row in part.rows:
                texts = [plain(cell) for cell in row]
                label = " / ".join(texts[: part.labels])
                for header, text in zip(headers[part.labels :], texts[part.labels :], strict=True):
                    yield {"section": section, "row": label, "column": header, "text": text}
                if part.labels == len(headers):  # a table of words: the first column names the row
                    for header, text in zip(headers[1:], texts[1:], strict=True):
                        yield {"section": section, "row": texts[0], "column": header, "text": text}


def _content(parts: Sequence[Part], cells: Sequence[Entry] | None) -> dict[str, Any]:
    texts = [part for part in parts if isinstance(part, Text)]
    content: dict[str, Any] = {
        "title": next(plain(part.line) for part in parts if isinstance(part, Heading)),
        "notes": [plain(text.line) for text in texts if text.item],
    }
    if cells is not None:
        return {**content, "source": SOURCE, "units": "percent", "cells": list(cells)}
    tables, section = [], ""
    for part in parts:
        if isinstance(part, Heading):
            section = plain(part.line)
        elif isinstance(part, Grid):
            rows = [[plain(cell) for cell in row] for row in part.rows]
            tables.append({"section": section, "columns": [plain(header) for header in part.headers], "rows": rows})
    return {**content, "tables": tables}


def flat(entry: Mapping[str, Any]) -> Entry:
    """Return an entry as one row: `cacc` becomes `cacc_ours`, `cacc_deviation` ..., a list its items joined by `;`."""
    row: Entry = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{inner}": number for inner, number in value.items()}
        elif isinstance(value, list):
            row[name] = ";".join("+".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
        else:
            row[name] = value
    return row


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header, "" for None; a text that a spreadsheet would run as a formula gets a quote."""
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
