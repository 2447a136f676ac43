"""Which word stands out over many texts: the words that weigh most in each, counted and ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Keyword(NamedTuple):
    """A word with its score; `label` is None where rows of all labels are counted together."""

    word: str
    label: int | None
    count: int  # rows that have it among their top words
    mean: float  # of its effect in these rows
    score: float  # log10(count) * mean


def top_words(words: Sequence[str], places: Sequence[int], effects: np.ndarray, top: int) -> dict[str, float]:
    """Return the `top` distinct words of a text with the greatest effects, greatest first.

    A word that stands at several places counts with its greatest effect; equal effects go by first place.
    """
    best: dict[str, float] = {}
    for place, effect in zip(places, effects.tolist(), strict=True):
        best[words[place]] = max(effect, best.get(words[place], 0.0))
    return dict(sorted(best.items(), key=lambda item: -item[1])[:top])


def ranked(tops: Iterable[Mapping[str, float]], labels: Iterable[int | None]) -> list[Keyword]:
    """Return every word that is a top word of at least two rows of one label, best score first, ties by word.

    Pass None for all labels to count over all rows.
    """
    effects: dict[tuple[str, int | None], list[float]] = {}
    for row, label in zip(tops, labels, strict=True):
        for word, effect in row.items():
            effects.setdefault((word, label), []).append(effect)
    found = []
    for (word, label), values in effects.items():
        if len(values) > 1:  # log10(1) = 0: a word of one row says nothing
            mean = math.fsum(values) / len(values)
            found.append(Keyword(word, label, len(values), mean, math.log10(len(values)) * mean))
    return sorted(found, key=lambda item: (-item.score, item.word, -1 if item.label is None else item.label))
