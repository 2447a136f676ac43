"""95 % intervals of a rate over its seeds: Wilson's for one seed, a bootstrap for several."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence

import numpy as np

from bench.core.metrics import wilson
from bench.report.records import Record

DRAWS = 2000
Counts = tuple[tuple[int, int], ...]  # (hits, n) of each seed


def counts_of(records: Sequence[Record], name: str, group: str = "metrics") -> Counts | None:
    """Return the counts behind a metric in each record, or None where one of them has none."""
    found = []
    for record in records:
        entry = (record.get(group) or {}).get(name) or {}
        hits, n = entry.get("hits"), entry.get("n")
        if not isinstance(hits, int) or not isinstance(n, int) or not 0 <= hits <= n or n == 0:
            return None
        found.append((hits, n))
    return tuple(sorted(found)) or None


@functools.lru_cache(maxsize=1 << 16)
def interval(counts: Counts) -> tuple[float, float]:
    """Return the 95 % interval of the mean rate over seeds, two fractions in [0, 1].

    One seed: Wilson's interval over the test samples. Several: the 2.5 and 97.5 percentiles of 2,000 means, each of
    seeds drawn with replacement and then of one test split of n samples drawn at that rate (a Beta draw with Jeffreys'
    prior), because every seed is tested on the same samples. The draws depend on the counts alone, and come from
    numpy's RandomState, whose stream is frozen: the same records give the same digits.
    """
    if len(counts) == 1:
        return wilson(*counts[0])
    draws = np.random.RandomState(zlib.crc32(repr(counts).encode()))
    rates = np.array([hits / n for hits, n in counts])
    n = min(n for _, n in counts)
    means = rates[draws.randint(len(rates), size=(DRAWS, len(rates)))].mean(axis=1)
    drawn = draws.beta(means * n + 0.5, (1 - means) * n + 0.5)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)
