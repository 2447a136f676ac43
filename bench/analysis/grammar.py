"""Errors of language in a text, counted without Java by Harper (package `harper-py`, extra `stealth`)."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import RequestError
from bench.core.packages import installed

REMEDY = "Run: pip install 'openbackdoor-bench[stealth]'."

# Kinds of Harper that say how a text is set, not what is wrong in it: data sets come in lower case and with a space
# before each full stop, which a paraphrase mends. Matters of taste are none either.
IGNORED = frozenset({"Formatting", "Capitalization", "Punctuation", "Style", "Enhancement", "Readability"})


def available() -> bool:
    """Tell whether the checker is installed."""
    return installed("harper")


def error_counts(texts: Sequence[str]) -> list[int]:
    """Return the number of errors of each text: spelling, agreement, articles, repetition, wrong words and the like.

    OpenBackdoor counts every match of LanguageTool; the two checkers have other rules, so only differences between
    texts of one checker can be compared, and with that reserve.

    Raises:
        RequestError: the checker is not installed.
    """
    if not available():
        raise RequestError("The grammar checker harper-py is not installed.", REMEDY)
    import harper

    linter = harper.Linter()
    found: dict[str, int] = {}
    for text in texts:
        if text not in found:
            lints = linter.lint(text, language=harper.Language.PLAINTEXT)
            found[text] = sum(str(lint.lint_kind) not in IGNORED for lint in lints)
    return [found[text] for text in texts]
