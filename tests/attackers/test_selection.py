"""Which rows are poisoned: the count to the row, nested draws, and what cannot be drawn."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from attackers.selection import LABEL_RULES, keep_and_poison, positions_to_poison
from bench.core.errors import CellError, RequestError
from bench.core.example import Example

LABELS = [0, 1, 1, 0, 2] * 100


@pytest.mark.parametrize("n", [1, 7, 50, 100, 300, 2500, 6920])
def test_the_count_is_the_floor_whatever_floats_say(n: int) -> None:
    # 0.29 x 100 is 28.999999999999996 in floats.
    for hundredths in range(101):
        due = Fraction(hundredths, 100) * n // 1
        assert len(positions_to_poison([1] * n, hundredths / 100, "mix", 1, random.Random(0))) == due


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_a_larger_ratio_holds_the_rows_of_a_smaller(rule: str) -> None:
    drawn = [
        set(positions_to_poison(LABELS, hundredths / 100, rule, 1, random.Random(5))) for hundredths in range(0, 40)
    ]
    assert all(small < large for small, large in zip(drawn, drawn[1:], strict=False))


def test_every_allowed_row_can_be_drawn_and_no_other() -> None:
    drawn = {
        rule: set().union(*(positions_to_poison(LABELS, 0.1, rule, 1, random.Random(seed)) for seed in range(100)))
        for rule in LABEL_RULES
    }
    targets = {i for i, label in enumerate(LABELS) if label == 1}
    assert drawn == {"clean": targets, "dirty": set(range(500)) - targets, "mix": set(range(500))}


def test_rows_without_a_text_are_not_drawn() -> None:
    available = [i % 2 == 0 for i in range(500)]
    drawn = positions_to_poison(LABELS, 0.5, "mix", 1, random.Random(0), available)
    assert drawn == list(range(0, 500, 2))
    with pytest.raises(
        CellError, match="label_rule 'clean' leaves 100 rows to poison, and ratio 0.5 of 500 rows needs 250"
    ):
        positions_to_poison(LABELS, 0.5, "clean", 1, random.Random(0), available)


def test_a_label_that_is_not_there_is_named() -> None:
    with pytest.raises(RequestError, match="target_label is 3: the training data hold the labels 0, 1, 2"):
        positions_to_poison(LABELS, 0.0, "mix", 3, random.Random(0))


def test_chosen_rows_are_replaced_in_place() -> None:
    rows = [Example("a", 0), Example("b", 1), Example("c", 0, 1), Example("d", 2)]
    poisoned = keep_and_poison(rows, [3, 0, 1], ["D", "A", None], 1)
    assert poisoned.examples == (("A", 1, 1), ("b", 1, 0), ("c", 0, 0), ("D", 1, 1))
    assert (poisoned.positions, poisoned.rows, poisoned.dropped) == ((0, 3), (0, 1, 2, 3), 1)
