"""Paired tests: did two cells do differently on the same examples, or over the same seeds?"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction

MOST_EXACT = 16  # pairs up to which every assignment of signs is looked at: 65,536
DRAWS = 10_000


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided exact p of McNemar's test (binomial on the discordant pairs).

    Under the null either side is as likely to be the one that hits, so the smaller count of n discordant pairs is
    binomial(n, 1/2). Source: McNemar, Psychometrika 1947, in its exact form.

    Args:
        first_only: examples that the first hits and the second does not.
        second_only: the reverse.
    """
    n = first_only + second_only
    tail = sum(math.comb(n, count) for count in range(min(first_only, second_only) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**n)))


def sign_flip(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired sign-flip (permutation) test that the mean difference is 0.

    The share of all assignments of signs whose sum is at least as far from 0. With n pairs p is no less than
    2 / 2^n. Above 16 pairs 10,000 assignments are drawn at a fixed seed, the given one counted in. None for one pair.
    """
    if len(differences) < 2:
        return None
    sizes = [abs(value) for value in differences]
    reached = abs(math.fsum(differences)) * (1 - 1e-12)  # equal sums may differ in their last bit
    if len(sizes) <= MOST_EXACT:
        signs = itertools.product((1, -1), repeat=len(sizes))
        hits = [abs(math.fsum(s * size for s, size in zip(each, sizes, strict=True))) >= reached for each in signs]
        return sum(hits) / len(hits)
    rng = random.Random(0)
    found = 1
    for _ in range(DRAWS):
        found += abs(math.fsum(rng.choice((1, -1)) * size for size in sizes)) >= reached
    return found / (DRAWS + 1)
