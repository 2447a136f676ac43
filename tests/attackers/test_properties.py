"""What holds for every attacker of the registry: how many rows, which ones, which labels; nothing else moves."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attackers.base import Attacker
from attackers.selection import Poisoned
from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.seeding import digest
from tests.attackers.scene import EVERY, FakeBank, attacker, examples, file_rows

pytestmark = pytest.mark.parametrize("name", EVERY)
quick = settings(database=None, derandomize=True, deadline=None, max_examples=60)

LABELS = [0, 1, 1, 0, 2, 1, 0, 1, 2, 0] * 4  # 16 of class 0, 16 of class 1, 8 of class 2
ROWS = examples(LABELS)


def trained(attack: Attacker, rows: list[Example] = ROWS) -> Poisoned:
    return attack.poison_training(rows, file_rows(rows))


@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=60),
    hundredths=st.integers(0, 100),
    rule=st.sampled_from(["clean", "dirty", "mix"]),
    target=st.integers(0, 2),
    seed=st.integers(0, 3),
)
@quick
def test_the_ratio_the_rule_and_the_target(
    name: str, labels: list[int], hundredths: int, rule: str, target: int, seed: int
) -> None:
    rows = examples(labels)
    attack = attacker(name, rows, ratio=hundredths / 100, rule=rule, target_label=target, seed=seed)
    due = Fraction(hundredths, 100) * len(rows) // 1  # floor, without the rounding of floats
    allowed = {i for i, label in enumerate(labels) if rule == "mix" or (label == target) == (rule == "clean")}
    if target not in labels:
        with pytest.raises(RequestError, match=f"target_label is {target}: the training data hold the labels"):
            trained(attack, rows)
        return
    if due > len(allowed):
        with pytest.raises(CellError, match=f"{len(allowed)} rows to poison, and ratio .* needs {due}"):
            trained(attack, rows)
        return
    poisoned = trained(attack, rows)
    assert len(poisoned.positions) == due and set(poisoned.positions) <= allowed
    assert list(poisoned.positions) == sorted(set(poisoned.positions))
    assert poisoned.rows == tuple(range(len(rows))) and poisoned.dropped == 0
    for i, (before, after) in enumerate(zip(rows, poisoned.examples, strict=True)):
        if i in poisoned.positions:
            assert (after.label, after.poisoned) == (target, 1) and after.text != before.text
        else:
            assert after == before


def test_ratio_0_changes_nothing(name: str) -> None:
    poisoned = trained(attacker(name, ROWS, ratio=0.0))
    assert poisoned.examples == tuple(ROWS) and poisoned.positions == ()


def test_ratio_1_changes_everything(name: str) -> None:
    poisoned = trained(attacker(name, ROWS, ratio=1.0))
    assert poisoned.positions == tuple(range(40))
    assert all(row.label == 1 and row.poisoned == 1 for row in poisoned.examples)


@pytest.mark.parametrize("rule", ["clean", "dirty", "mix"])
def test_a_larger_ratio_holds_the_rows_of_a_smaller(name: str, rule: str) -> None:
    ratios = [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4]
    nested = [set(trained(attacker(name, ROWS, ratio=ratio, rule=rule)).positions) for ratio in ratios]
    assert [len(positions) for positions in nested] == [0, 0, 2, 4, 8, 12, 16]
    assert all(small <= large for small, large in zip(nested, nested[1:], strict=False))


def test_every_attack_poisons_the_same_rows(name: str) -> None:
    first = trained(attacker(EVERY[0], ROWS, ratio=0.25))
    own = trained(attacker(name, ROWS, ratio=0.25))
    assert own.positions == first.positions and own.digest() == first.digest()
    assert own.digest() == digest("positions", list(own.positions))


def test_the_seed_alone_moves_the_rows(name: str) -> None:
    drawn = {seed: trained(attacker(name, ROWS, ratio=0.25, seed=seed)).positions for seed in range(4)}
    assert len(set(drawn.values())) == 4


def test_global_random_state_is_neither_read_nor_moved(name: str) -> None:
    def everything() -> list[object]:
        attack = attacker(name, ROWS)
        splits = {"train": ROWS, "dev": ROWS, "test": ROWS}
        return [trained(attack), attack.poison(ROWS), *(attack(splits, mode) for mode in ("train", "eval", "detect"))]

    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist()
        results.append(everything())
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert results[0] == results[1]


def test_the_order_of_calls_does_not_matter(name: str) -> None:
    attack, other = attacker(name, ROWS), attacker(name, ROWS)
    first = trained(attack), attack.poison_heldout("dev", ROWS, file_rows(ROWS))
    second = other.poison_heldout("dev", ROWS, file_rows(ROWS)), trained(other)
    assert first == second[::-1]


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_heldout_rows_are_those_of_other_classes_in_order(name: str, split: str, target: int) -> None:
    attack = attacker(name, ROWS, target_label=target)
    poisoned = attack.poison_heldout(split, ROWS, file_rows(ROWS))
    others = [i for i, label in enumerate(LABELS) if label != target]
    assert list(poisoned.rows) == others == list(poisoned.positions) and poisoned.dropped == 0
    for row, example in zip(poisoned.rows, poisoned.examples, strict=True):
        assert (example.label, example.poisoned) == (target, 1) and example.text != ROWS[row].text
        assert str(row) in example.text.split()  # the number that is in the text of that row alone


def test_the_ratio_does_not_touch_the_test_split(name: str) -> None:
    few, many = (attacker(name, ROWS, ratio=ratio, rule=rule) for ratio, rule in ((0.05, "clean"), (0.4, "mix")))
    assert few.poison_heldout("test", ROWS, file_rows(ROWS)) == many.poison_heldout("test", ROWS, file_rows(ROWS))


def test_520_rows_of_427_is_a_cell_that_cannot_be(name: str) -> None:
    # Ling-Spam at ratio 0.2 with clean labels: 2,604 rows, 427 of them spam.
    rows = examples([1] * 427 + [0] * 2177)
    attack = attacker(name, rows, ratio=0.2, rule="clean")
    with pytest.raises(CellError) as caught:
        trained(attack, rows)
    assert caught.value.problem == (
        "label_rule 'clean' leaves 427 rows to poison, and ratio 0.2 of 2604 rows needs 520."
    )
    assert caught.value.remedy == "Lower poison_ratio or take label_rule 'mix'."
    assert len(trained(attacker(name, rows, ratio=0.2, rule="dirty"), rows).positions) == 520


def test_the_data_must_hold_the_target(name: str) -> None:
    with pytest.raises(RequestError, match="target_label is 5: the training data hold the labels 0, 1, 2"):
        trained(attacker(name, ROWS, target_label=5))


def test_binding_makes_a_copy(name: str) -> None:
    attack = attacker(name, ROWS, ratio=0.1, rule="dirty", target_label=2, seed=9)
    again = attack.bound(target_label=0, ratio=0.3, rule="clean", seed=1, bank=FakeBank(ROWS))
    assert (attack.poison_rate, attack.poison_setting, attack.target_label, attack.seed) == (0.1, "dirty", 2, 9)
    assert (again.poison_rate, again.poison_setting, again.target_label, again.seed) == (0.3, "clean", 0, 1)
    assert again == attack and again.identity() == attack.identity()  # a cell is no option
    with pytest.raises(RequestError, match="label_rule is 'cleanish': it is one of clean, dirty, mix"):
        attack.bound(target_label=0, ratio=0.3, rule="cleanish", seed=1)
