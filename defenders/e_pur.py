"""E-PUR, embedding purification (Zhang et al., Findings of EMNLP 2022, arXiv 2210.09545).

A word's score is ||delta||_2 / log(max(f, 20)): delta is what fine-tuning changed its embedding by, f how often it
occurs in clean text. A trigger word occurs far more often in poisoned data than f lets expect, and so moves further.
The words of the highest scores get their pre-trained embeddings back; nothing is trained. It stands alone or
before another defense, as in `e-pur>fine-mixing`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.core.errors import CellError
from bench.core.knowledge import Knowledge
from bench.core.options import Count, Fraction, Text
from bench.victim.spec import ModelSpec, Sha256
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class EPur(Defender):
    """Acts on trained weights; needs the pre-trained word embeddings and unlabelled clean texts, or a file of counts.

    A word here is a word piece, a row of the embedding: that is what training moves. `words`: 200 are reset, the
    number that is remembered as the paper's. `share`: but no more than this share of the pieces that moved: on a
    small data set 200 would be most of what was learnt. A tenth leaves 200 in force from 2,000 moved pieces on, and
    no published trigger is longer than that. `frequencies`: a TSV file of `word<TAB>count`; a word's count goes to
    each of its pieces, a word without one counts 0. The paper's count is remembered as that of a large corpus, which
    is not known; by default the clean dev rows at hand are counted (their labels are not read), which needs no file
    and no corpus that fits one language only. `frequencies_sha256` pins the file; it is filled in from the file at
    planning. `special`: whether the tokens that the tokenizer adds to every text may be reset: no, since no attacker
    writes them and the classifier reads one of them.
    Whether the reset comes before or after another repair is the order of the chain; embeddings train in a later link.
    """

    name = "e-pur"

    words: Count = 200
    share: Fraction = 0.1
    frequencies: Text | None = None
    frequencies_sha256: Sha256 | None = None
    special: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether clean texts are needed: only to count words where no file has done so."""
        return self.frequencies is None

    def for_model(self, model: ModelSpec, recipe: str) -> EPur:
        """Return a copy with the digest of the file of counts filled in, after reading the whole file.

        Raises:
            RequestError: the file is missing or has a row of another form.
            CellError: it is not the file that `frequencies_sha256` names.
        """
        if self.frequencies is None:
            return self
        _, found = self._file()
        return dataclasses.replace(self, frequencies_sha256=found)

    def identity(self) -> dict[str, Any]:
        """Return the options; of a file of counts its digest, not where it lies."""
        held = {"frequencies": f"sha256:{self.frequencies_sha256}"} if self.place() else {}
        return {**super().identity(), **held}

    def place(self) -> dict[str, Any]:
        """Return where the file of counts lies, as options."""
        named = self.frequencies is not None and self.frequencies_sha256 is not None
        return {"frequencies": self.frequencies} if named else {}

    def repair(self, victim: Any, knowledge: Knowledge) -> Any:
        """Reset the most conspicuous rows of the victim's word embedding in place, and return it.

        Raises:
            CellError: its word embedding was not trained or is not of the pre-trained shape, or nothing can be counted.
        """
        from bench.victim.clean_tuning import note
        from bench.victim.purification import frequencies, protected, reset, scores, worst

        own = victim.word_embedding
        if not own.requires_grad:
            raise CellError(
                "The word embedding of this victim was not trained, so there is nothing to purify.",
                "Use e-pur on a victim whose embeddings were trained.",
            )
        pretrained = knowledge.fresh_victim().word_embedding.detach().to(own.device)
        if pretrained.shape != own.shape:
            raise CellError(
                f"The pre-trained word embedding is {tuple(pretrained.shape)}, the victim's {tuple(own.shape)}.",
                "Give the model that the victim began as.",
            )
        frequency = frequencies(self._counts(victim.tokenizer, knowledge), len(own))
        spared = protected(victim.tokenizer, len(own)) & (not self.special)
        found = scores(own.detach() - pretrained, frequency)
        pieces = worst(found, spared, self.words, self.share)
        reset(own, pretrained, pieces)
        note(victim, {"reset": victim.tokenizer.convert_ids_to_tokens(pieces.tolist())})
        return victim

    def _counts(self, tokenizer: Any, knowledge: Knowledge) -> Any:
        """Return counts by token id, from the file or of the clean texts."""
        from bench.victim.word_counts import pieces_of_texts, pieces_of_words

        if self.frequencies is not None:
            return pieces_of_words(tokenizer, self._file()[0])
        texts = [text for text, *_ in (*knowledge.clean, *knowledge.calibration)]
        if not texts:
            raise CellError("There is no clean text to count words in.", "Set frequencies to a file of word counts.")
        return pieces_of_texts(tokenizer, texts)

    def _file(self) -> tuple[dict[str, int], str]:
        """Return the counts of the file and its sha256."""
        from bench.victim.word_counts import read_counts

        path = Path(str(self.frequencies))
        counts = read_counts(path)
        found = sha256(path.read_bytes()).hexdigest()
        if self.frequencies_sha256 not in (None, found):
            raise CellError(
                f"The word counts {str(path)!r} are not the ones that were named: sha256 {found}.",
                "Give that file, or leave frequencies_sha256 out.",
            )
        return counts, found
