"""Whole pages against golden files that were compared by eye with the paper's layout.

To renew them after a wanted change: `python -m tests.report.test_golden`, then read the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report.exports import exports
from bench.report.render import render
from tests.report.fixtures import board_records

GOLDEN = Path(__file__).parent / "golden"
TABLES = (f"table{number}.md" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
FROM_MODEL_FILES = "table6.md"  # changes with each model file: tests/report/test_scaling_tables.py
PAGES = ("README.md", *TABLES, "fine-mixing.md", "equal-budget.md")
STEMS = ("board", *(name.removesuffix(".md") for name in PAGES[1:] if name != FROM_MODEL_FILES))
# The JSON of one table stands for all: it holds the numbers of the CSV and the notes of the page.
EXPORTS = (*(f"data/{stem}.{ending}" for stem in STEMS for ending in ("csv", "tex")), "data/table4.json")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return render(board_records(), every_table=True)


@pytest.fixture(scope="module")
def exported(pages: dict[str, str]) -> dict[str, str]:
    return exports(board_records(), pages)


@pytest.mark.parametrize("name", [name for name in PAGES if name != FROM_MODEL_FILES])
def test_page_is_the_golden_one(pages: dict[str, str], name: str) -> None:
    assert pages[name] == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXPORTS)
def test_export_is_the_golden_one(exported: dict[str, str], name: str) -> None:
    assert exported[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_there_is_no_other_page(pages: dict[str, str], exported: dict[str, str]) -> None:
    assert tuple(pages) == PAGES
    files = {name for name in exported if not name.startswith(f"data/{FROM_MODEL_FILES.removesuffix('.md')}.")}
    assert files == {f"data/{stem}.{ending}" for stem in STEMS for ending in ("csv", "tex", "json")}


def write() -> None:
    """Write the golden pages and exports anew."""
    pages = render(board_records(), every_table=True)
    exported = exports(board_records(), pages)
    for name, text in {**pages, **{name: exported[name] for name in EXPORTS}}.items():
        if name != FROM_MODEL_FILES:
            (GOLDEN / name).parent.mkdir(exist_ok=True)
            (GOLDEN / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
