"""A leaderboard is made from one sorting of its records and one reading of its pages, in time that grows like them."""

from __future__ import annotations

import enum
import time
from typing import Any

import numpy as np
import pytest

from bench.report.exports import exports
from bench.report.ledger import Ledger
from bench.report.reading import read_page
from bench.report.records import canonical, distinct
from bench.report.render import render
from bench.report.selection import select, selections
from bench.report.site.build import site
from tests.report.fixtures import ATTACKS, DEFENSES, board_records, record


class Kind(enum.StrEnum):
    """A text that is a member of an enumeration."""

    one = "one"


def published(records: Any) -> dict[str, str]:
    pages = render(records, every_table=True)
    return pages | exports(records, pages) | site(records, pages)


def test_a_ledger_gives_the_bytes_of_its_records_and_reads_each_page_once() -> None:
    expected = published(board_records())
    read_page.cache_clear()
    ledger = Ledger(board_records())
    assert published(ledger) == expected
    assert read_page.cache_info().misses == sum(name.endswith(".md") for name in expected)
    assert Ledger.of(ledger) is ledger and ledger.selection is Ledger.of(ledger).selection


def test_selections_of_several_ratios_are_those_of_each() -> None:
    records = [record(ratio=ratio, seed=seed) for ratio in (0, 0.05, 0.1) for seed in (0, 1)]
    found = selections(records, (0.05, 0.1))
    assert {ratio: len(one.attacked["released", "fp32"]) for ratio, one in found.items()} == {0.05: 2, 0.1: 2}
    assert found == {ratio: select(records, ratio) for ratio in (0.05, 0.1)}


def test_a_canonical_text_depends_on_values_alone() -> None:
    assert canonical({"b": (1, 2.0), "a": None}) == canonical({"a": None, "b": [1, 2.0]}) == '{"a":null,"b":[1,2.0]}'
    assert len({canonical(value) for value in (1, 1.0, True, "1", [1], None, "\u00e9", "e\u0301")}) == 8
    assert canonical([np.float64(0.5), Kind.one]) == '[0.5,"one"]'  # what json takes and marshal does not
    assert canonical("ab" * 2) == canonical("".join(["a", "b", "abab"[:2]]))


def test_a_repeated_record_is_kept_once_and_a_contradiction_is_told() -> None:
    good, other = record(asr=(1, 912)), record(asr=(2, 912))
    failed = {**record(error=("E", "m", "r")), "key": good["key"]}
    first, second = sorted((good, other), key=canonical)
    assert distinct([failed, second, first, good]) == ([first], [second, failed])


@pytest.mark.slow
def test_publishing_grows_no_faster_than_the_records() -> None:
    def seconds(models: int) -> float:
        records = [
            record("sst2", attack, defense, f"model-{model}", seed, ratio, asr=(seed + model + 100, 912))
            for model in range(models)
            for attack in ATTACKS
            for defense in DEFENSES
            for seed in (0, 1, 2)
            for ratio in (0, 0.1, 0.2)
        ]
        start = time.process_time()
        published(Ledger(records))
        return time.process_time() - start

    seconds(1)  # what is made once for all
    few, many = seconds(2), seconds(8)
    assert many < 8 * few, f"{few:.2f} s for 792 records, {many:.2f} s for 3,168"
