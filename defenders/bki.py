"""BKI (Chen and Dai, arXiv 2007.12070): the word whose removal moves the model's states most is the trigger.

Made for an LSTM; OpenBackdoor took it to transformers. Acts on the training split (cleanse);
needs no clean samples. For each row and word: the L-infinity norm of the change of the last hidden state ([CLS]; a
decoder's last real token) when the word is left out. The `top` words of a row count. A word scores log10(rows that
count it) times its mean effect in them, the formula of the published code; rows that count the best word are removed.

Differs from the published code:
* The model is by default the shared victim, trained on the same rows at the same settings, so that nothing is trained
  twice; its checkpoint is chosen by clean dev rows. `victim="own"` trains one for BKI alone and keeps the last weights,
  as published.
* A word that stands twice in a row counts once, with its greater effect: published, repetitions crowd the top words
  and inflate the count of frequent words.
* A word that counts in more than `max_share` of the rows is no keyword: the poison is a minority, and published, a
  function word that always counts a little can cost most of the training set. 1 restores that.
* A word of a single row is no keyword (its score is 0): published, some row goes even when no word recurs.
* All variants of many rows share length-sorted batches: the same numbers to rounding, many times faster. Words are
  joined by single spaces in both texts of a pair, so that a pair differs in nothing but the word.
* A row of more than `max_words` words is judged by that many of them, drawn by the seed, among those the model reads;
  once the keywords are known, their other places in such rows are tried too. Published: every word, one batch per row.

As published, something is removed even from clean data: there is no threshold below which no word is suspect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bench.core.example import Example
from bench.core.options import Count, Fraction
from bench.victim.keywords import Keyword, ranked, top_words
from bench.victim.studied import StudiedModel, studied
from defenders.base import Defender


class Study(NamedTuple):
    """What BKI saw: the words, places tried and top words (with effects) of each row, and the keywords, best first."""

    sentences: list[list[str]]
    places: list[np.ndarray]
    tops: list[dict[str, float]]
    ranking: list[Keyword]


@dataclass(frozen=True, kw_only=True)
class Bki(StudiedModel, Defender):
    """Removes the training rows that lean on the most suspicious word."""

    name = "bki"
    pre = True
    correction = True

    top: Count = 5  # words of a row that count
    keywords: Count = 1  # how many of the best words are removed
    by_label: bool = False  # count each word per label, and remove rows of that label only; published: over all rows
    max_share: Fraction = 0.5  # of the rows (of its label, where `by_label`) in which a keyword may count
    max_words: Count = 128  # of one row

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[Example]:
        """Return the rows that do not have a keyword among their top words, in order.

        Raises:
            CellError: no model to look at, or states that are not finite.
        """
        if not poison_data:
            return []
        victim = studied(self, self.knowledge, model, poison_data)
        study = self._study(victim, poison_data)
        removed = self._removed(victim, study, poison_data)
        return [example for row, example in enumerate(poison_data) if row not in removed]

    def study(self, victim: Any, rows: Sequence[Example]) -> Study:
        """Return the top words of each row and the ranking of the keywords, as a trained victim shows them."""
        return self._study(victim, [Example(*row) for row in rows])

    def _study(self, victim: Any, rows: Sequence[Example]) -> Study:
        from bench.victim.saliency import removal_effects

        generator = self.knowledge.generator("words of long rows")
        sentences = [row.text.split() for row in rows]
        # Every word is a token or more, so words beyond the model's limit are never read.
        read = [min(len(words), victim.max_length) for words in sentences]
        places = [
            np.arange(count)
            if count <= self.max_words
            else np.sort(generator.choice(count, self.max_words, replace=False))
            for count in read
        ]
        effects = removal_effects(victim, sentences, places)
        tops = [
            top_words(words, tried, effect, self.top)
            for words, tried, effect in zip(sentences, places, effects, strict=True)
        ]
        groups = [self._group(row) for row in rows]
        sizes = Counter(groups)
        found = [word for word in ranked(tops, groups) if word.count <= self.max_share * sizes[word.label]]
        return Study(sentences, places, tops, found)

    def _group(self, row: Example) -> int | None:
        return row.label if self.by_label else None

    def _removed(self, victim: Any, study: Study, rows: Sequence[Example]) -> set[int]:
        """Return the positions of the rows that have a keyword among their top words."""
        from bench.victim.saliency import removal_effects

        chosen = {(keyword.word, keyword.label) for keyword in study.ranking[: self.keywords]}
        removed: set[int] = set()
        untried: dict[int, list[int]] = {}
        for row, (example, words) in enumerate(zip(rows, study.sentences, strict=True)):
            group = self._group(example)
            if any((word, group) in chosen for word in study.tops[row]):
                removed.add(row)
            elif len(study.places[row]) == self.max_words:
                tried = set(study.places[row].tolist())
                others = [place for place in range(min(len(words), victim.max_length)) if place not in tried]
                untried[row] = [place for place in others if (words[place], group) in chosen]
        again = {row: places for row, places in untried.items() if places}
        effects = removal_effects(victim, [study.sentences[row] for row in again], list(again.values()))
        for row, effect in zip(again, effects, strict=True):
            least = min(study.tops[row].values()) if len(study.tops[row]) == self.top else -np.inf
            if effect.max() > least:
                removed.add(row)
        return removed
