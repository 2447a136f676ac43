"""Paired tests: values worked out by hand, and against scipy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.paired import mcnemar, sign_flip


@pytest.mark.parametrize(
    ("first_only", "second_only", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (0, 5, 2 / 32), (1, 5, 14 / 64), (2, 2, 1.0), (3, 9, 2 * 299 / 4096)],
)
def test_mcnemar_by_hand(first_only: int, second_only: int, p: float) -> None:
    # 1 of 6: (1 + 6) / 64 in each tail; 3 of 12: 1 + 12 + 66 + 220 = 299 of 4096.
    assert mcnemar(first_only, second_only) == mcnemar(second_only, first_only) == p


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_scipys_binomial_test(first_only: int, second_only: int) -> None:
    from scipy.stats import binomtest

    n = first_only + second_only
    if n:
        assert mcnemar(first_only, second_only) == pytest.approx(binomtest(first_only, n).pvalue, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([], None),
        ([1.0], None),
        ([0.0, 0.0], 1.0),
        ([0.1, 0.2, 0.3], 2 / 8),
        ([3, -1, 2], 4 / 8),
        ([1, -1], 1.0),
        ([4, 4, 3, -7], 14 / 16),
        ([0.4, 0.4, 0.3, -0.7], 14 / 16),
    ],
)
def test_sign_flip_by_hand(differences: list[float], p: float | None) -> None:
    # 3 - 1 + 2 = 4; of the eight sums of +-3 +-1 +-2, 6, 4, -4 and -6 are as far from 0.
    # 4 + 4 + 3 - 7 = 4; of the sixteen sums only 2 and -2 are nearer. Tenths of them differ in their last bits.
    assert sign_flip(differences) == p


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=8))
def test_sign_flip_knows_no_direction_and_has_a_least_p(differences: list[float]) -> None:
    p = sign_flip(differences)
    assert p is not None and 2 / 2 ** len(differences) <= p <= 1
    assert sign_flip([-value for value in differences]) == p
    assert sign_flip(differences[::-1]) == pytest.approx(p)


def test_many_pairs_are_drawn_and_repeat() -> None:
    differences = [0.01 * (place % 5) for place in range(30)]
    assert sign_flip(differences) == sign_flip(differences) < 0.001
    # Of 10,000 draws none is likely to have 30 like signs (2 / 2^30): what is counted is the given assignment alone.
    assert sign_flip([1.0] * 30) == 1 / 10_001
