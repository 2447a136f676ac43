"""Placing paraphrases whose file lost rows without a mark: a monotone alignment by shared words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

# The gain in total score that a placement must have over every other place of the same paraphrase. On the 369
# rows of Ling-Spam synbkd test whose place can be checked (the same message has the same paraphrase in train or
# dev), every placement is right, at any margin.
MARGIN = 0.1


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def _similarities(sources: Sequence[str], paraphrases: Sequence[str]) -> list[list[float]]:
    """Return [n_paraphrases, n_dropped + 1] similarities of paraphrase j with source j + k, each in [0, 1].

    The similarity is the weight of the shared words over the geometric mean of both texts' weights; a word
    weighs the logarithm of its rarity among the sources.
    """
    source_words = [_words(source) for source in sources]
    frequency = Counter(word for words in source_words for word in words)
    weight = {word: math.log((len(sources) + 1) / count) for word, count in frequency.items()}
    totals = [sum(weight[word] for word in words) or 1.0 for words in source_words]
    dropped = len(sources) - len(paraphrases)
    table = []
    for j, paraphrase in enumerate(paraphrases):
        words = _words(paraphrase)
        total = sum(weight.get(word, 0.0) for word in words) or 1.0
        table.append(
            [
                sum(weight[word] for word in words & source_words[j + k]) / math.sqrt(total * totals[j + k])
                for k in range(dropped + 1)
            ]
        )
    return table


def _best_sums(table: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return, for each row j and column k, the best sum of rows 0..j that ends at k over non-decreasing columns."""
    sums: list[list[float]] = []
    for row in table:
        best, current = -math.inf, []
        for k, value in enumerate(row):
            best = max(best, sums[-1][k]) if sums else 0.0
            current.append(best + value)
        sums.append(current)
    return sums


def align(sources: Sequence[str], paraphrases: Sequence[str]) -> list[int | None]:
    """Return for each paraphrase the position of its source, or None where the words do not decide it.

    Both are in the same order, and some sources have no paraphrase. The places maximise the summed similarity
    under that order; one is given only when any other place of the paraphrase costs more than `MARGIN`, so the
    places given are those of one alignment, and they rise.
    """
    if len(paraphrases) > len(sources):
        raise ValueError(f"{len(paraphrases)} paraphrases cannot stem from {len(sources)} sources.")
    if len(paraphrases) == len(sources):
        return list(range(len(sources)))
    table = _similarities(sources, paraphrases)
    before = _best_sums(table)
    after = [row[::-1] for row in _best_sums([row[::-1] for row in table[::-1]])[::-1]]
    places: list[int | None] = []
    for j, row in enumerate(table):
        totals = [before[j][k] + after[j][k] - row[k] for k in range(len(row))]
        best = max(range(len(row)), key=totals.__getitem__)
        runner_up = max(total for k, total in enumerate(totals) if k != best)
        places.append(j + best if totals[best] - runner_up > MARGIN else None)
    return places
