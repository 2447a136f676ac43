"""How much each word of a text moves the victim's last hidden state: the text is read again without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench.victim.states import last_states
from bench.victim.victim import Victim

VARIANTS = 4096  # texts in memory at once


def removal_effects(
    victim: Victim, sentences: Sequence[Sequence[str]], places: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Return for each sentence the L-infinity norms, float32 [len(places)], of the change when a word is left out.

    A sentence is a list of words, joined by one space with and without the word; `places` are the positions to try.
    Variants of many sentences share batches, and sentences of like length share variants; with a victim that is read
    plainly each sentence has a batch of its own with its variants, as in the published code.
    """
    effects: list[np.ndarray] = [np.zeros(0, dtype=np.float32) for _ in sentences]
    for group in _groups(sentences, places, 1 if victim.plain else VARIANTS):
        texts = []
        for row in group:
            words = list(sentences[row])
            texts.append(" ".join(words))
            texts.extend(" ".join(words[:place] + words[place + 1 :]) for place in places[row])
        states, start = last_states(victim, texts), 0
        for row in group:
            end = start + 1 + len(places[row])
            effects[row] = (states[start + 1 : end] - states[start]).abs().amax(-1).cpu().numpy()
            start = end
    return effects


def _groups(sentences: Sequence[Sequence[str]], places: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Yield the sentences that have places to try, longest first, in groups of `most` texts, or of one sentence."""
    group: list[int] = []
    size = 0
    for row in sorted(range(len(sentences)), key=lambda row: -len(sentences[row])):
        if not len(places[row]):
            continue
        if group and size + 1 + len(places[row]) > most:
            yield group
            group, size = [], 0
        group.append(row)
        size += 1 + len(places[row])
    if group:
        yield group
