"""What a record says of stored predictions and flags, counted by hand; the edges where nothing or everything is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.core.spec import Cell, Part
from bench.engine.records import _measured, error_of

CELL = Cell(Part("demo"), Part("badnets"), Part("bert"), Part("strip"))
LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
PREDICTED = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])  # nine right of ten; the fifth is taken for the target
POISONED = np.array([1, 1, 1, 1, 0])  # versions of the first five rows


def _record(flags: Any = None, **changes: Any) -> dict[str, Any]:
    predictions = {
        "clean": np.eye(2)[PREDICTED],
        "poisoned": np.eye(2)[POISONED],
        "labels": LABELS,
        "rows": np.arange(5),
        **changes,
    }
    return _measured(CELL, predictions, flags, 2, {"placed": 5})


def _flags(clean: Any, poisoned: Any) -> dict[str, np.ndarray]:
    return {"clean": np.broadcast_to(clean, 10).astype(int), "poisoned": np.broadcast_to(poisoned, 5).astype(int)}


def test_without_a_detector_by_hand() -> None:
    found = _record()
    assert (found["metrics"]["cacc"]["hits"], found["metrics"]["asr"]["hits"]) == (9, 4)
    assert found["metrics"]["asr_floor"] == {"value": 0.2, "hits": 1, "n": 5}
    assert found["trained"] is True and found["metrics_flip"] is None


def test_a_detector_that_flags_nothing_changes_nothing() -> None:
    found, plain = _record(_flags(0, 0)), _record()
    for name in ("cacc", "asr", "asr_floor"):
        assert found["metrics"][name] == plain["metrics"][name] == found["metrics_flip"][name]
    assert (found["metrics"]["frr"]["value"], found["metrics"]["far"]["value"]) == (0.0, 1.0)
    assert found["trained"] is True


def test_a_detector_is_trained_by_what_it_rejects_not_by_what_it_turns_round() -> None:
    """The first five answers are wrong and flagged: turned round all are right, rejected half are."""
    found = _record(_flags([1] * 5 + [0] * 5, 1), clean=np.eye(2)[np.ones(10, int)])
    assert (found["metrics"]["cacc"]["value"], found["metrics_flip"]["cacc"]["value"]) == (0.5, 1.0)
    assert found["trained"] is False


@pytest.mark.parametrize("clean", [1, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]])
def test_a_detector_that_flags_too_much_is_no_defense_whatever_its_asr(clean: Any) -> None:
    """All flagged: CACC 0. Four right ones flagged: CACC 0.5, what always answering one class has."""
    found = _record(_flags(clean, 1))
    assert found["metrics"]["asr"]["hits"] == 0
    assert found["trained"] is False


def test_half_a_character_in_an_error_is_recorded_as_its_escape() -> None:
    found = error_of(ValueError("no lexicon at /data/caf\udce9"), "poison", "Traceback: caf\udce9, café")
    assert (found["message"], found["traceback"]) == ("no lexicon at /data/caf\\udce9", "Traceback: caf\\udce9, café")
    assert error_of(ValueError("plain"), "train")["traceback"] is None
