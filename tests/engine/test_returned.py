"""What a plug-in hands back is checked where it is taken: a wrong kind is one sentence with a remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import CellError
from bench.engine.plan import Plan
from bench.engine.returned import flags_of, scores_of
from defenders.base import Suspicion
from tests.engine import mistaken
from tests.engine.conftest import Tiny

HERE = "tests.engine.mistaken"


@pytest.mark.parametrize(
    "found",
    [[0, 1, 1], (False, True, True), np.array([0, 1, 1], np.int8), np.array([0.0, 1.0, 1.0]), [0, True, np.int64(1)]],
)
def test_a_flag_is_0_or_1_of_any_kind(found: Any) -> None:
    assert flags_of(found, 3).tolist() == [0, 1, 1] and flags_of(found, 3).dtype == int


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([0.7] * 3, "one of its flags is 0.7"),
        (np.array([0, 1, 0.5]), "one of its flags is 0.5"),
        ([0, 1, 2], "one of its flags is 2"),
        ([0, 1, -1], "one of its flags is -1"),
        ([0, 1, float("nan")], "one of its flags is nan"),
        (["0", "1", "1"], "one of its flags is '0'"),
        ([None, 1, 0], "one of its flags is None"),
        ([0, 1, None], "one of its flags is None"),
        ([0, 1], "it returned 2 flags for 3 examples"),
        (None, "its detect() returned None"),
        (1, "its detect() returned 1"),
        ([[0], [1], [1]], "its detect() returned [[0], [1], [1]]"),
        ([[0], [1, 1]], "its detect() returned [[0], [1, 1]]"),
        (([0, 1, 1], 0.5), "its detect() returned ([0, 1, 1], 0.5)"),
    ],
)
def test_anything_else_is_no_flag(found: Any, reason: str) -> None:
    with pytest.raises(CellError) as caught:
        flags_of(found, 3)
    assert caught.value.problem == f"The defense did not answer 0 or 1 for each example: {reason}."
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("threshold", "flags"),
    [(0.5, [0, 1]), (np.inf, [0, 0]), (-np.inf, [1, 1]), (torch.tensor(0.5), [0, 1]), (np.array([0.5]), [0, 1])],
)
def test_a_threshold_is_one_number_of_any_kind_and_may_be_infinite(threshold: Any, flags: list[int]) -> None:
    scores, found = scores_of(Suspicion([0, 1], threshold), 2)
    assert scores.tolist() == [0.0, 1.0] and found.tolist() == flags


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Suspicion(np.zeros(2), np.nan), "threshold of a suspicion is nan"),
        (Suspicion(np.zeros(2), None), "threshold of the defense's suspicion is None"),
        (Suspicion(np.zeros(2), [0.1, 0.2]), "threshold of the defense's suspicion is [0.1, 0.2]"),
        (Suspicion(np.zeros(2), [[0.1], [0.2]]), "threshold of the defense's suspicion is [[0.1], [0.2]]"),
        (Suspicion(np.zeros(2), "high"), "threshold of the defense's suspicion is 'high'"),
        (Suspicion(np.zeros(3), 0.5), "one finite score for each of 2 examples"),
        (Suspicion([0, np.nan], 0.5), "one finite score for each of 2 examples"),
        (Suspicion(["a", "b"], 0.5), "one finite score for each of 2 examples: ['a', 'b']"),
        ((np.zeros(2), 0.5), "suspicion is (array([0., 0.]), 0.5), and no Suspicion"),
        (None, "suspicion is None, and no Suspicion"),
    ],
)
def test_what_is_no_suspicion(found: Any, reason: str) -> None:
    with pytest.raises(CellError) as caught:
        scores_of(found, 2)
    assert reason in caught.value.problem and caught.value.remedy


def test_a_threshold_that_is_no_number_flags_nothing_in_no_pipeline() -> None:
    with pytest.raises(CellError, match="threshold of a suspicion is nan"):
        Suspicion(np.zeros(2), float("nan")).flags()


def failures(tiny: Tiny, axis: str, plan: Plan) -> dict[str, str]:
    """Return, by the name on an axis, why a cell failed."""
    return {getattr(plan.cells[key], axis).name: reason for key, reason in tiny.run(plan).failed.items()}


def test_a_defense_that_hands_back_the_wrong_thing_fails_with_a_sentence(tiny: Tiny) -> None:
    mistakes = {
        "Shares": "did not answer 0 or 1 for each example: one of its flags is 0.7. Return",
        "Silent": "did not answer 0 or 1 for each example: its detect() returned None. Return",
        "Pair": "suspicion is (array([0.",
        "Texts": "correct() returned 'abc' among its rows, and an example is (text, label, flag). Return one for each",
        "Numbers": "among its rows, and an example is (text, label, flag). Return the rows to keep",
        "Nothing": "correct() returned None, and no examples. Return the rows to keep",
        "InPlace": "repair() returned None, and no victim. Return the repaired victim",
        "Hookless": "hooks() returned None, and no objects with on_gradients(run, batch). Return a list",
        "Bare": "and no objects with on_gradients(run, batch). Return a list",
    }
    found = failures(tiny, "defense", tiny.plan(defenders=[f"{HERE}:{name}" for name in mistakes]))
    reasons = {name: found.pop(getattr(mistaken, name).name) for name in mistakes}
    assert not found
    for name, reason in mistakes.items():
        assert reasons[name].startswith("The defense") and reason in reasons[name]


def test_an_attack_that_hands_back_no_text_fails_with_a_sentence(tiny: Tiny) -> None:
    mistakes = [f"{HERE}:{name}" for name in ("Forgetful", "Words", "TestOnly")]
    found = failures(tiny, "attack", tiny.plan(attacks=mistakes, defenders=["vanilla"], poison_ratios=[0.125]))
    assert found["forgetful"].startswith("Attack 'forgetful' returned no text for any of ")
    assert found["words"].startswith("Attack 'words' returned ['cf', ") and "in place of a text" in found["words"]
    assert found["test-only"].startswith("Attack 'test-only' returned no text for any of 6 training rows. Return")


def test_what_an_attack_that_forgets_to_return_is_told_of_the_test_split(tiny: Tiny) -> None:
    plan = tiny.plan(attacks=[f"{HERE}:Forgetful"], defenders=["vanilla"], poison_ratios=[0.0])
    (reason,) = failures(tiny, "attack", plan).values()
    assert "test rows that are not of the target label. Return the poisoned text" in reason


def test_a_ratio_that_asks_for_no_row_is_no_mistake(tiny: Tiny) -> None:
    plan = tiny.plan(attacks=[f"{HERE}:TestOnly"], defenders=["vanilla"], poison_ratios=[0.01])
    assert failures(tiny, "attack", plan) == {}
