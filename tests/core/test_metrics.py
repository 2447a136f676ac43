"""Metrics against cases counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.core.metrics import accuracy, attack_success, auroc, detection_rates, rate, trained, wilson, with_flags

# Eight clean examples of two classes, six predicted right; a detector flags four of them.
LABELS = [0, 0, 0, 1, 1, 1, 1, 1]
PREDICTIONS = [0, 0, 1, 1, 1, 1, 1, 0]
FLAGS = [1, 0, 1, 0, 0, 1, 0, 1]  # right, -, wrong, -, -, right, -, wrong


def counts(hits: int, n: int) -> dict[str, Any]:
    return {"value": hits / n, "hits": hits, "n": n}


def test_a_rate_comes_with_its_counts() -> None:
    assert rate(3, 4) == {"value": 0.75, "hits": 3, "n": 4}
    assert rate(np.int64(0), 4) == counts(0, 4)
    assert rate(0, 0) is None


def test_accuracy() -> None:
    assert accuracy(PREDICTIONS, LABELS) == counts(6, 8)
    assert accuracy([], []) is None


def test_attack_success_counts_the_target() -> None:
    assert attack_success([1, 1, 0, 2, 1], 1) == counts(3, 5)
    assert attack_success([0, 0], 1) == counts(0, 2)
    assert attack_success([], 1) is None


def test_reject_makes_a_flagged_input_wrong() -> None:
    # Of the six right ones two are flagged; the two wrong ones stay wrong.
    rejected = with_flags(PREDICTIONS, FLAGS, "reject", 2)
    assert rejected.tolist() == [-1, 0, -1, 1, 1, -1, 1, -1]
    assert accuracy(rejected, LABELS) == counts(4, 8)


def test_flip_turns_the_prediction_round() -> None:
    # The two right flagged ones become wrong, the two wrong flagged ones right.
    flipped = with_flags(PREDICTIONS, FLAGS, "flip", 2)
    assert flipped.tolist() == [1, 0, 0, 1, 1, 0, 1, 1]
    assert accuracy(flipped, LABELS) == counts(6, 8)


def test_a_flagged_poisoned_input_is_no_success() -> None:
    # Target 1: three successes, of which two are flagged; one failure is flagged.
    predictions, flags = [1, 1, 1, 0], [1, 1, 0, 1]
    assert attack_success(with_flags(predictions, flags, "reject", 2), 1) == counts(1, 4)
    # Under flip the flagged failure becomes a success: prediction 0 is compared with the flipped label.
    assert attack_success(with_flags(predictions, flags, "flip", 2), 1) == counts(2, 4)


def test_no_flag_changes_nothing() -> None:
    for rule in ("reject", "flip"):
        assert with_flags(PREDICTIONS, [0] * 8, rule, 2).tolist() == PREDICTIONS


def test_flip_is_for_two_classes_only() -> None:
    assert with_flags([3, 2], [1, 0], "reject", 4).tolist() == [-1, 2]
    with pytest.raises(ValueError, match="'flip' does not exist for 4 classes"):
        with_flags([3, 2], [1, 0], "flip", 4)
    with pytest.raises(ValueError, match="'turn' does not exist"):
        with_flags([1, 0], [1, 0], "turn", 2)


def test_frr_is_of_clean_and_far_of_poisoned() -> None:
    flags, poisoned = [1, 0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1, 1]
    assert detection_rates(flags, poisoned) == {"frr": counts(1, 4), "far": counts(1, 3)}
    assert detection_rates([1, 0], [0, 0]) == {"frr": counts(1, 2), "far": None}
    assert detection_rates([1, 0], [1, 1]) == {"frr": None, "far": counts(1, 2)}


@pytest.mark.parametrize(
    ("scores", "value"),
    [
        ([0.1, 0.2, 0.8, 0.9], 1.0),
        ([0.9, 0.8, 0.2, 0.1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], 0.5),
        # Pairs (clean, poisoned): (1,2) and (1,3) above, (2,2) ties, (2,3) above: 3.5 of 4.
        ([1, 2, 2, 3], 0.875),
        ([1, 4, 2, 3], 0.5),
    ],
)
def test_auroc_counts_pairs_and_a_tie_as_half(scores: list[float], value: float) -> None:
    assert auroc(scores, [0, 0, 1, 1]) == pytest.approx(value)


def test_auroc_needs_both_kinds() -> None:
    assert auroc([0.1, 0.2], [0, 0]) is None and auroc([0.1, 0.2], [1, 1]) is None and auroc([], []) is None


def test_a_model_counts_as_trained_above_the_majority_by_more_than_a_twentieth() -> None:
    labels = [0] * 6 + [1] * 4  # majority 0.6
    assert not trained(0.6, labels) and not trained(0.65, labels) and not trained(0.0, labels)
    assert trained(0.66, labels) and trained(1.0, labels)
    four = [0, 1, 2, 3] * 5  # majority 0.25
    assert not trained(0.30, four) and trained(0.31, four)


def test_wilson_of_8_of_10() -> None:
    # z = 1.96: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half 1.96 / 1.38415 * sqrt(0.016 + 0.009604) = 0.22658.
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.49016, abs=1e-4), pytest.approx(0.94332, abs=1e-4))


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(0, 20)  # z^2 / (n + z^2)
    assert low == pytest.approx(0.0, abs=1e-12) and high == pytest.approx(3.841459 / 23.841459, abs=1e-6)
    low, high = wilson(20, 20)
    assert low == pytest.approx(20 / 23.841459, abs=1e-6) and high == pytest.approx(1.0, abs=1e-12)
