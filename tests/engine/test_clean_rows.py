"""The clean budget: exactly so many rows, disjoint, and no new cell for a defense that uses none."""

from __future__ import annotations

import pytest

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.registry import DEFENDERS, names
from bench.engine import plugins
from bench.engine.clean_rows import divide

DEV = [Example(f"text {number}", number % 2, 0) for number in range(400)]


@pytest.mark.parametrize(
    ("samples", "calibrated", "expected"),
    [(64, False, (97, 0)), (64, True, (48, 49)), (0, True, (0, 97)), (0, False, (0, 0))],
)
def test_a_budget_is_spent_to_the_row(samples: int, calibrated: bool, expected: tuple[int, int]) -> None:
    parts = divide(DEV, samples, calibrated, "sst2", 0, 97)
    assert (len(parts.method), len(parts.calibration)) == expected
    free = divide(DEV, samples, calibrated, "sst2", 0)
    assert parts.selection == free.selection
    seen = [*parts.selection, *parts.method, *parts.calibration]
    assert len(set(seen)) == len(seen)


def test_which_rows_they_are_follows_the_seed_and_the_data_set() -> None:
    def texts(dataset: str, seed: int) -> list[str]:
        return [row.text for row in divide(DEV, 64, False, dataset, seed).method]

    assert texts("sst2", 0) == texts("sst2", 0) != texts("sst2", 1)
    assert texts("sst2", 0) != texts("hsol", 0)


def test_no_part_shows_a_poison_flag() -> None:
    marked = [row._replace(poisoned=1) for row in DEV]
    assert divide(marked, 64, True, "sst2", 0) == divide(DEV, 64, True, "sst2", 0)


def test_a_budget_beyond_the_half_is_refused() -> None:
    with pytest.raises(CellError, match="clean budget of 201 rows"):
        divide(DEV, 64, False, "sst2", 0, 201)


@pytest.mark.parametrize("name", names(DEFENDERS))
def test_only_users_of_clean_rows_are_other_cells_under_a_budget(name: str) -> None:
    free, fixed = (plugins.construct(DEFENDERS, name, options) for options in ({}, {"clean_budget": 32}))
    uses = free.samples() > 0 or free.calibrated
    assert (free.identity() == fixed.identity()) is not uses
    assert "clean_budget" not in free.identity()
