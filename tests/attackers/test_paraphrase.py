"""Paraphrase attacks: rows that the paraphraser dropped, banks with and without a row map."""

from __future__ import annotations

import pytest

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.registry import ATTACKERS, plugin_class
from tests.attackers.scene import EVERY, FIRST_ROW, FakeBank, attacker, examples, file_rows

PARAPHRASING = [name for name in EVERY if plugin_class(ATTACKERS, name).bank]
ROWS = examples([0, 1, 0, 1, 0, 1, 0, 1])  # rows 1000 to 1007

pytestmark = pytest.mark.parametrize("name", PARAPHRASING)


def test_the_paraphrase_of_a_row_is_asked_for_by_its_file_row(name: str) -> None:
    poisoned = attacker(name, ROWS, ratio=1.0).poison_training(ROWS, file_rows(ROWS))
    assert [row.text for row in poisoned.examples] == [f"so text number {i} is here" for i in range(8)]
    with pytest.raises(AssertionError):  # the bank of this scene, asked for another row's text
        attacker(name, ROWS, ratio=1.0).poison_training(ROWS, file_rows(ROWS)[::-1])


def test_a_dropped_row_of_training_is_never_chosen_and_the_ratio_holds(name: str) -> None:
    bank = FakeBank(ROWS, dropped={FIRST_ROW + 2, FIRST_ROW + 3})
    poisoned = attacker(name, ROWS, ratio=0.75, bank=bank).poison_training(ROWS, file_rows(ROWS))
    assert poisoned.positions == (0, 1, 4, 5, 6, 7) and poisoned.dropped == 0
    assert poisoned.examples[2] == ROWS[2] and poisoned.examples[3] == ROWS[3]
    assert poisoned.examples[4] == Example("so text number 4 is here", 1, 1)
    assert poisoned.rows == tuple(range(8))
    for ratio in (0.25, 0.5):
        few = attacker(name, ROWS, ratio=ratio, bank=bank).poison_training(ROWS, file_rows(ROWS))
        assert len(few.positions) == 8 * ratio and not {2, 3} & set(few.positions)


def test_more_rows_than_the_paraphraser_left_cannot_be(name: str) -> None:
    bank = FakeBank(ROWS, dropped={FIRST_ROW + 2, FIRST_ROW + 3})
    reason = r"label_rule 'mix' leaves 6 rows to poison, and ratio 1.0 of 8 rows needs 8. Lower poison_ratio.$"
    with pytest.raises(CellError, match=reason):
        attacker(name, ROWS, ratio=1.0, bank=bank).poison_training(ROWS, file_rows(ROWS))
    with pytest.raises(CellError, match="'clean' leaves 3 rows to poison, and ratio 0.5 of 8 rows needs 4"):
        attacker(name, ROWS, ratio=0.5, rule="clean", bank=bank).poison_training(ROWS, file_rows(ROWS))


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_dropped_row_of_a_heldout_split_is_left_out_and_counted(name: str, split: str) -> None:
    bank = FakeBank(ROWS, dropped={FIRST_ROW + 2, FIRST_ROW + 3})  # row 3 is of the target: never asked for
    poisoned = attacker(name, ROWS, bank=bank).poison_heldout(split, ROWS, file_rows(ROWS))
    assert poisoned.rows == (0, 4, 6) == poisoned.positions and poisoned.dropped == 1
    assert poisoned.examples == tuple(Example(f"so text number {i} is here", 1, 1) for i in (0, 4, 6))


def test_a_paraphrase_of_a_test_row_that_nobody_knows_counts_all_the_same(name: str) -> None:
    class Published(FakeBank):
        def poisoned_test(self) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
            return ("so it is", "so where from", "so be it"), (FIRST_ROW + 6, None, FIRST_ROW)

    poisoned = attacker(name, ROWS, bank=Published(ROWS)).poison_heldout("test", ROWS, file_rows(ROWS))
    assert [example.text for example in poisoned.examples] == ["so it is", "so where from", "so be it"]
    assert poisoned.rows == (6, None, 0) and poisoned.positions == (6, 0) and poisoned.dropped == 1


def test_openbackdoors_poison_leaves_dropped_rows_out(name: str) -> None:
    bank = FakeBank(ROWS, dropped={1})  # without file rows a row is its position
    poisoned = attacker(name, ROWS, bank=bank).poison(ROWS)
    assert [row.text for row in poisoned] == [f"so text number {i} is here" for i in (0, 2, 3, 4, 5, 6, 7)]


def test_what_the_bank_refuses_is_not_hidden(name: str) -> None:
    class Absent(FakeBank):
        def paraphrases(self, split: str, examples: object, rows: object) -> list[str | None]:
            raise CellError("'lingspam' has no published stylebkd training bank, only dev and test.")

    with pytest.raises(CellError, match="no published stylebkd training bank"):
        attacker(name, ROWS, bank=Absent(ROWS)).poison_training(ROWS, file_rows(ROWS))
