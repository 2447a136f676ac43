"""Cutting a text into sentences with what nltk has offline."""

from __future__ import annotations

import functools
from typing import Any, Literal

Split = Literal["sentences", "whole"]

# The trained Punkt models are a download, and results must not hang on whether a machine has one: an untrained Punkt
# is used everywhere, told the abbreviations that would most often end a sentence for it.
ABBREVIATIONS = (
    "mr mrs ms dr prof st sr jr rev gen col lt sgt capt hon gov sen rep pres vs etc e.g i.e cf al inc ltd co corp no "
    "fig vol ed pp p a.m p.m u.s u.k u.n d.c jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri"
).split()


@functools.cache
def _tokenizer() -> Any:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters)


def units_of(text: str, split: Split) -> tuple[str, ...]:
    """Return the pieces of a text that are paraphrased one by one: its sentences, stripped, or the text as it is.

    A text of white space alone has no piece. White space between sentences is not kept.
    """
    if not text.strip():
        return ()
    if split == "whole":
        return (text,)
    return tuple(piece.strip() for piece in _tokenizer().tokenize(text) if piece.strip())
