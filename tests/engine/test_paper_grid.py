"""The grid `paper` is the paper's tables, no cell more and none less."""

from __future__ import annotations

import pytest

from bench.engine.expand import expand
from bench.engine.grid import load_grid
from bench.report.paper import published_table

TABLES = (1, 2, 3, 4, 7, 8, 9)


def settings(grid: str) -> list[tuple[str, str, str, str]]:
    cells = expand(load_grid(grid).blocks()).cells.values()
    return [(cell.dataset.name, cell.model.name, cell.attack.name, cell.defense.name) for cell in cells]


@pytest.mark.parametrize("table", TABLES)
def test_the_grid_of_a_table_has_exactly_its_cells(table: int) -> None:
    assert sorted(settings(f"table{table}")) == sorted(published_table(table))


def test_the_paper_is_308_distinct_settings() -> None:
    found = settings("paper")
    assert len(found) == len(set(found)) == 308  # the count of the transcription's own README
    assert set(found) == {setting for table in TABLES for setting in published_table(table)}
