"""In which order a cleanser sees training rows: one that does not tell which are poisoned."""

from __future__ import annotations

from bench.engine.work_victim import shown_order


def test_a_cleanser_sees_rows_where_the_clean_ones_stood_or_in_random_order() -> None:
    source = [7, 3, 9, 1, 5]
    assert shown_order(source, source, 0) == [0, 1, 2, 3, 4]  # what this suite poisons stands in place
    assert shown_order([7, 9, 5], source, 0) == [0, 1, 2]  # some rows removed before
    assert shown_order([7, 9, 5, 3, 1], source, 0) == [0, 3, 1, 4, 2]  # the published files put the poison last
    assert shown_order([3, 7, 3], source, 0) == [1, 0, 2]  # two poisoned versions of one row
    blind = shown_order([*range(50), *[-1] * 50], range(50), 1)
    assert sorted(blind) == list(range(100)) and 10 < sum(i >= 50 for i in blind[50:]) < 40
