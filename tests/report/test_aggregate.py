"""Means, deviations, ranks and marks against values worked out by hand."""

from __future__ import annotations

import pytest

from bench.report.aggregate import Stat, cells, comparable_asr, group_mean, marks, ranks, stat
from bench.report.board import average_ranks
from bench.report.markdown import percent
from tests.report.fixtures import record


def test_deviation_is_the_sample_one() -> None:
    # Mean 0.2; squared deviations 0.01 + 0 + 0.01, over n - 1 = 2: 0.01; its root is 0.1.
    assert stat([0.1, 0.2, 0.3]) == Stat(pytest.approx(0.2), pytest.approx(0.1), 3)


def test_one_value_has_no_deviation() -> None:
    assert stat([0.5]) == Stat(0.5, None, 1)


@pytest.mark.parametrize("values", [[], [None], [0.1, None]])
def test_a_group_with_a_missing_value_has_no_mean(values: list[float | None]) -> None:
    assert stat(values) is None
    assert group_mean(values) is None


def test_ranks_share_their_mean_on_a_tie_and_skip_the_missing() -> None:
    assert ranks([0.5, 0.1, None, 0.1, 0.9]) == [3.0, 1.5, None, 1.5, 4.0]


def test_lowest_is_bold_and_second_lowest_underlined() -> None:
    assert marks([0.3, 0.1, 0.2, None], 4, underline=True) == ["", "bold", "underline", ""]
    assert marks([0.3, 0.1, 0.2, None], 4, underline=False) == ["", "bold", "", ""]


def test_values_that_print_alike_are_marked_alike() -> None:
    # 12.341 % and 12.339 % both print 12.34.
    assert marks([0.12341, 0.12339, 0.2, 0.2], 4, underline=True) == ["bold", "bold", "underline", "underline"]


def test_a_cell_alone_is_not_the_best_of_anything() -> None:
    assert marks([0.1, None], 1, underline=True) == ["", ""]


def test_cell_over_seeds() -> None:
    found = cells([record(seed=seed, cacc=(80 + seed, 100), asr=(20, 100), floor=(5, 100)) for seed in (2, 0, 1)])
    (cell,) = found.values()
    assert list(found) == [("sst2", "bert-base", "badnets", "lora")]
    assert cell.cacc == Stat(pytest.approx(0.81), pytest.approx(0.01), 3)
    assert cell.gain == Stat(pytest.approx(0.15), pytest.approx(0.0), 3)
    assert cell.seeds == (0, 1, 2)


def test_an_untrained_seed_takes_the_cell_out_of_the_comparison() -> None:
    (cell,) = cells([record(seed=0), record(seed=1, trained=False)]).values()
    assert cell.untrained == 1
    assert comparable_asr(cell) is None


def test_a_missing_floor_of_one_seed_leaves_no_gain() -> None:
    (cell,) = cells([record(seed=0), record(seed=1, floor=None)]).values()
    assert cell.asr is not None and cell.gain is None


def test_average_rank_needs_every_cell_of_the_defense() -> None:
    shots = {"vanilla": (900, 900), "lora": (300, 500), "ga": (100, 700)}
    everything = [
        record(attack=attack, defense=name, asr=(hits[place], 912))
        for name, hits in shots.items()
        for place, attack in enumerate(("badnets", "addsent"))
    ]
    found = cells(everything)
    grid = {name: [found["sst2", "bert-base", attack, name] for attack in ("badnets", "addsent")] for name in shots}
    assert average_ranks(grid) == {"vanilla": 3.0, "lora": 1.5, "ga": 1.5}
    # Without its second cell ga has no average, and its first cell, the best on badnets, moves nobody.
    assert average_ranks({**grid, "ga": [grid["ga"][0], None]}) == {"vanilla": 2.0, "lora": 1.0, "ga": None}


@pytest.mark.parametrize(("fraction", "text"), [(0.12345, "12.35"), (1.0, "100.00"), (-1e-9, "0.00"), (None, "—")])
def test_percent(fraction: float | None, text: str) -> None:
    assert percent(fraction) == text
