"""ONION (Qi et al., arXiv 2011.10369): words whose removal makes a text more plausible are deleted at test time.

The suspicion of a word is the perplexity of the text minus that of the text without the word, under a causal language
model; words at or above `bar` are deleted. It reads texts alone, so every victim shares what it writes.

Differs from the published code (OpenBackdoor's and MuScleLoRA's `onion_defender.py`):
* The loss of a text is averaged over its own tokens. There it is averaged over padding too, whose amount depends on
  the other texts of the batch, so that a word's suspicion depends on its neighbours in the data.
* Texts of one word are kept as they are. There they are dropped from the test set, which changes the denominators.
* A start token precedes every text, so that the first word is charged for itself; `start_token=False` is as published,
  where a trigger in front is seen only by what it does to the words after it.
* A text longer than `max_tokens` is read in windows of whole words. There it is cut at 96 tokens: every later word
  changes nothing when removed, has the suspicion 0 and is deleted, so long texts are truncated.
* The least suspicious word stays when all of them reach the bar: a text never becomes empty.
* Words are what `split()` gives, and a text from which nothing is deleted is returned unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.options import Count, Fraction, Real, Text
from bench.victim.spec import Commit, ModelSpec
from defenders.base import Defender
from defenders.calibration import calibration_rows, known

DEFAULT = ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e")
LOCAL = "local"
LEAST_TEXTS = 20  # clean dev texts below which neither a language model nor a quantile means anything
REMEDY = "Set lm to a folder with a causal language model, let this machine reach the hub, or set lm to local."


@dataclass(frozen=True, kw_only=True)
class Onion(Defender):
    """Acts at test time on texts; needs clean dev texts (no labels) for `lm="local"` or for a `quantile`.

    `lm` is a hub id, a local folder, or `local`: a small GPT-2 trained on the calibration texts themselves, a much
    weaker judge than GPT-2. With `quantile` the bar is this quantile of the suspicions of all words of the clean
    dev texts; with both, the first half of the texts trains the model and the second sets the bar.
    """

    name = "onion"
    correction = True
    filter_uses_model = False

    lm: Text = DEFAULT[0]
    revision: Commit | None = None  # commit of the hub repository; GPT-2's own is filled in
    lm_files: Text | None = None  # digest of a local folder's files, filled in when the run is planned
    bar: Real = 0.0  # in units of perplexity
    quantile: Fraction | None = None  # instead of `bar`; 0.99 deletes a hundredth of the words of clean dev texts
    start_token: bool = True
    max_tokens: Count = 96  # of a window

    def _validate(self) -> None:
        super()._validate()
        if self.quantile is not None and self.bar != 0.0:
            raise RequestError("onion has both a bar and a quantile.", "Set one of them.")
        if self.revision is not None and self.lm == LOCAL:
            raise RequestError("onion's local language model has no revision.", "Leave it out, or name a hub id as lm.")

    @property
    def calibrated(self) -> bool:
        """Whether it is given clean dev texts."""
        return self.lm == LOCAL or self.quantile is not None

    @property
    def filter_is_drawn(self) -> bool:
        """Whether random numbers make its language model."""
        return self.lm == LOCAL

    def for_model(self, model: Any, recipe: str) -> Onion:
        """Return a copy with the pin of the language model filled in; both recipes are alike.

        Raises:
            CellError: a hub id without its commit.
        """
        import dataclasses

        spec = self.lm_spec()
        if spec is None:
            return self
        if spec.hub:
            return dataclasses.replace(self, revision=spec.revision)
        return dataclasses.replace(self, lm_files=self._files(spec))

    def identity(self) -> dict[str, Any]:
        """Return the options; of a folder with a language model the digest of its files, not where it lies."""
        return {**super().identity(), **({"lm": self.lm_files} if self.place() else {})}

    def place(self) -> dict[str, Any]:
        """Return where the folder with the language model lies, as options."""
        return lm_place(self.lm, self.revision, self.lm_files)

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[Example]:
        """Return the examples, in order, with suspicious words deleted from their texts.

        Raises:
            CellError: the language model is missing, without tokenizer or not generative; too few clean dev texts.
        """
        texts = self._calibration(clean_data)
        judge = self._judge(texts, getattr(model, "device", None) or getattr(known(self), "device", "cpu"))
        bar = self.bar
        if self.quantile is not None:
            held_out = texts[len(texts) // 2 :] if self.lm == LOCAL else texts
            scores = np.concatenate(judge.suspicions([text.split() for text in held_out], self.max_tokens))
            bar = _quantile(scores[np.isfinite(scores)], self.quantile)
        words = [text.split() for text, *_ in poison_data]
        scores = judge.suspicions(words, self.max_tokens)
        return [
            Example(corrected(example.text, row, suspicion, bar), example.label, 0)
            for example, row, suspicion in zip(poison_data, words, scores, strict=True)
        ]

    def _calibration(self, clean_data: Mapping[str, Sequence[Example]]) -> list[str]:
        if not self.calibrated:
            return []
        return [text for text, *_ in calibration_rows(self, clean_data, LEAST_TEXTS)]

    def _judge(self, texts: Sequence[str], device: Any) -> Any:
        """Return the language model; the one of the last call when nothing that decides it has changed."""
        seed = known(self).seed
        key = (tuple(texts) if self.lm == LOCAL else (), seed, str(device))
        last = self.__dict__.get("_last_judge")
        if last is None or last[0] != key:
            last = (key, self._local(texts, seed, device) if self.lm == LOCAL else self._loaded(device))
            object.__setattr__(self, "_last_judge", last)
        return last[1]

    def _local(self, texts: Sequence[str], seed: int, device: Any) -> Any:
        from bench.victim.local_lm import local_language_model

        learnt = texts[: len(texts) // 2] if self.quantile is not None else texts
        return local_language_model(learnt, seed=seed, start_token=self.start_token, device=device)

    def _loaded(self, device: Any) -> Any:
        from bench.victim.loading import checked_folder
        from bench.victim.perplexity import language_model

        spec = self.lm_spec()
        if spec.path and self.lm_files not in (None, self._files(spec)):
            raise CellError(
                f"The files of language model {self.lm!r} are not those that this run was planned with.",
                "Plan the run again, or put the files back.",
            )
        try:
            folder = checked_folder(spec)
        except CellError as error:
            raise CellError(error.problem, REMEDY) from error
        return language_model(folder, self.lm, start_token=self.start_token, device=device)

    def lm_spec(self) -> ModelSpec | None:
        """Return where the language model comes from, None for the local one."""
        if self.lm == LOCAL:
            return None
        if Path(self.lm).is_dir():
            return ModelSpec(name=self.lm, path=self.lm)
        revision = self.revision or (DEFAULT[1] if self.lm == DEFAULT[0] else None)
        if revision is None:
            raise CellError(
                f"Language model {self.lm!r} is no folder here, and as a hub id it has no pinned commit.",
                "Name a folder, or set revision to the 40 hexadecimal digits of the commit.",
                away=True,
            )
        return ModelSpec(name=self.lm, hub=self.lm, revision=revision)

    def _files(self, spec: ModelSpec) -> str:
        from bench.victim.loading import weights_identity

        try:
            return weights_identity(spec)
        except CellError as error:
            raise CellError(error.problem, REMEDY, away=True) from error


def lm_place(lm: str, revision: str | None, lm_files: str | None) -> dict[str, Any]:
    """Return `lm` as an option where it is a folder whose digest was filled in: a hub id has a commit instead."""
    return {"lm": lm} if lm_files is not None and revision is None and lm not in (LOCAL, DEFAULT[0]) else {}


def corrected(text: str, words: Sequence[str], suspicion: np.ndarray, bar: float) -> str:
    """Return a text without its words [n] whose suspicion [n] is at or above the bar; one word at least stays."""
    deleted = np.asarray(suspicion) >= bar
    if not deleted.any():
        return text
    if deleted.all():
        deleted[int(np.argmin(suspicion))] = False
    return " ".join(word for word, gone in zip(words, deleted, strict=True) if not gone)


def _quantile(scores: np.ndarray, share: float) -> float:
    if not len(scores):
        raise CellError("No clean dev text has two words, so ONION has no quantile.", "Set a bar.")
    return float(np.quantile(scores, share))
