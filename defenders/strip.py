"""STRIP (Gao et al., arXiv 1902.06531; for text arXiv 1911.10312): a trigger keeps the prediction of a perturbed text.

Every text is copied `repeat` times with a share of its words replaced by those of clean dev texts. The entropy of the
victim's prediction, averaged over the copies of the text, is low where a trigger decides.

Differs from the published code (`strip_defender.py` in OpenBackdoor and MuScleLoRA, configured alike):
* Entropies are averaged over the copies of one text. There an array laid out text by text is reshaped
  (repeat, n) and averaged over the first axis: each score is the mean of `repeat` different texts.
* Replaced places are distinct, and at least one word is replaced. There they are drawn with replacement, so fewer words
  change than `swap_ratio` says, and texts of under 1 / swap_ratio words do not change at all.
* Inserted words occur in the drawn dev text; when it has too few, another is drawn. There the rest come from the
  whole vocabulary in no meaningful order.
* A dev text is never perturbed with its own words, which would keep its prediction and lower the threshold.
* Any number of classes; MuScleLoRA's pipeline asserts two.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.core.errors import CellError
from bench.core.options import Count, Fraction
from defenders.base import Defender, Suspicion
from defenders.calibration import calibration_rows, known, order_statistic

LEAST_ROWS = 20  # calibration rows below which a low quantile of them means nothing


@dataclass(frozen=True, kw_only=True)
class Strip(Defender):
    """Acts at inference; needs clean dev texts (no labels) as donors of words and to set its threshold.

    `swap_ratio` is 0.25, as the paper's tables were made; OpenBackdoor's own default is 0.5.
    """

    name = "strip"
    version = 2  # 2: the copies of a text are drawn for that text alone
    calibrated = True

    repeat: Count = 5  # perturbed copies of each text
    swap_ratio: Fraction = 0.25  # of the words of a text, replaced in a copy
    frr: Fraction = 0.01  # clean dev texts we accept to flag

    def questions(
        self, model: Any = None, clean_data: Any = None, poison_data: Any = None
    ) -> Generator[Any, Any, Suspicion]:
        """Find minus the mean entropy (bits) of the copies of each example; the threshold is dev's `frr` quantile.

        Raises:
            CellError: fewer than 20 clean dev texts, or fewer than two of them with a word besides stop words.
        """
        from bench.victim.questions import Likely

        rows = calibration_rows(self, clean_data, LEAST_ROWS)
        calibration, examined = [text for text, *_ in rows], [text for text, *_ in poison_data]
        donors, own = _Donors(calibration), known(self)
        copies: list[str] = []
        # Each text has a generator of its own, so that its score hangs neither on its place nor on the other texts.
        for row, text in enumerate(calibration):
            rng = own.generator(f"strip: calibration on {text}")
            copies += [donors.perturbed(text, self.swap_ratio, rng, besides=row) for _ in range(self.repeat)]
        for text in examined:
            rng = own.generator(f"strip: copies of {text}")
            copies += [donors.perturbed(text, self.swap_ratio, rng) for _ in range(self.repeat)]
        mean = mean_entropies((yield Likely(copies)), self.repeat)
        threshold = order_statistic(mean[: len(calibration)], self.frr)
        return Suspicion(-mean[len(calibration) :], -threshold)


def mean_entropies(probabilities: np.ndarray, repeat: int) -> np.ndarray:
    """Return the entropy in bits of each row of [n * repeat, classes], averaged over `repeat` rows in a row: [n]."""
    likely = np.asarray(probabilities, dtype=np.float64)
    entropy = -np.sum(likely * np.log2(np.where(likely > 0, likely, 1.0)), axis=-1)
    return entropy.reshape(-1, repeat).mean(axis=1)


class _Donors:
    """The words of each clean text by falling tf-idf, English stop words left out."""

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(norm=None, stop_words="english")
        try:
            weights = vectorizer.fit_transform(texts).tocsr()
        except ValueError:  # no word at all is left
            weights, names = None, ()
        else:
            names = vectorizer.get_feature_names_out()
        self.words: dict[int, list[str]] = {}
        for row in range(len(texts) if weights is not None else 0):
            # Equal weights go by the alphabet, the order of the columns.
            columns = sorted(zip(weights[row].indices, weights[row].data, strict=True), key=lambda it: (-it[1], it[0]))
            if columns:
                self.words[row] = [str(names[column]) for column, _ in columns]
        self.rows = np.array(list(self.words), dtype=int)
        if len(self.rows) < 2:
            raise CellError(
                "Fewer than two clean dev texts have a word besides English stop words, so STRIP has none to insert.",
                "Take a data set with other dev texts.",
            )

    def perturbed(self, text: str, ratio: float, rng: np.random.Generator, besides: int | None = None) -> str:
        """Return a text with a share of its words replaced by the top words of a random clean text, not `besides`."""
        words = text.split()
        count = min(len(words), max(1, int(len(words) * ratio))) if ratio > 0 else 0
        places = rng.choice(len(words), size=count, replace=False) if count else []
        inserted: list[str] = []
        while len(inserted) < count:
            donor = int(rng.choice(self.rows))
            if donor != besides:
                inserted += self.words[donor]
        for place, word in zip(places, inserted, strict=False):
            words[place] = word
        return " ".join(words)
