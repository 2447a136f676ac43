"""How well the poison of an attack hides: what it changes in a text, for a language model, a checker, an encoder.

The four measures of OpenBackdoor (perplexity, grammar errors, similarity of meaning; Cui et al. 2022, NeurIPS) and the
length of the trigger, each over pairs of a clean text and its poisoned version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

Counter = Callable[[Sequence[str]], Sequence[int]]
Perplexities = Callable[[Sequence[str]], np.ndarray]
Similarities = Callable[[Sequence[str], Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Stealth:
    """Means over the pairs of one attack; None where a measure was not taken, or had no pair.

    A change is the poisoned text minus the clean one. `perplexity_pairs` are those whose two texts have two tokens
    or more, which alone have a perplexity.
    """

    pairs: int
    perplexity_clean: float | None
    perplexity_poisoned: float | None
    perplexity_change: float | None  # mean, as OpenBackdoor reports it; a few texts can make it
    perplexity_change_median: float | None
    perplexity_pairs: int
    errors_clean: float | None
    errors_change: float | None
    similarity: float | None  # cosine, in [-1, 1]
    added_words: float | None  # words of the poisoned text that are not the clean one's: the trigger's length
    kept_words: float | None  # fraction of the clean text's words that are still there, in order


def measure(
    pairs: Sequence[tuple[str, str]],
    perplexities: Perplexities | None = None,
    errors: Counter | None = None,
    similarities: Similarities | None = None,
) -> Stealth:
    """Return the stealth of (clean, poisoned) pairs by the measures that are given."""
    clean, poisoned = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    changes = [word_changes(*pair) for pair in pairs]
    before = after = np.zeros(0)
    if perplexities is not None and pairs:
        before, after = np.asarray(perplexities(clean)), np.asarray(perplexities(poisoned))
        finite = np.isfinite(before) & np.isfinite(after)
        before, after = before[finite], after[finite]
    faults = None if errors is None else (np.asarray(errors(clean)), np.asarray(errors(poisoned)))
    return Stealth(
        pairs=len(pairs),
        perplexity_clean=_mean(before),
        perplexity_poisoned=_mean(after),
        perplexity_change=_mean(after - before),
        perplexity_change_median=float(np.median(after - before)) if len(before) else None,
        perplexity_pairs=len(before),
        errors_clean=None if faults is None else _mean(faults[0]),
        errors_change=None if faults is None else _mean(faults[1] - faults[0]),
        similarity=None if similarities is None or not pairs else _mean(similarities(clean, poisoned)),
        added_words=_mean([added for added, _, _ in changes]),
        kept_words=_mean([kept / words for _, kept, words in changes if words]),
    )


def word_changes(clean: str, poisoned: str) -> tuple[int, int, int]:
    """Return how many words of the poisoned text are new, how many of the clean one are kept, and how many it has.

    Words are what white space parts; kept are those of a longest-block alignment (difflib), in order.
    """
    first, second = clean.split(), poisoned.split()
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    kept = sum(block.size for block in blocks)
    return len(second) - kept, kept, len(first)


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
