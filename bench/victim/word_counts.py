"""How often words occur: a file of counts, and counts of words or texts as counts of word pieces; no torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import RequestError
from bench.core.paths import is_name

FORM = "Write one `word<TAB>count` a line, as UTF-8, count a whole number from 0."
ANCHOR = "a"  # a word stands behind another one, as most do: tokenizers that see spaces split it otherwise at the start


def read_counts(path: str | Path) -> dict[str, int]:
    """Return the counts of a file of `word<TAB>count` lines; a word that comes twice has the sum; empty lines pass.

    Raises:
        RequestError: the file cannot be read, a line has another form (file and line number are named), or none has it.
    """
    counts: Counter[str] = Counter()
    if not is_name(str(path)):
        raise RequestError(f"The word counts {str(path)!r} cannot be read: no file can have this name.", FORM)
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RequestError(f"The word counts {str(path)!r} cannot be read: {reason}.", FORM) from error
    for row, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        word, tab, count = line.rstrip("\r").partition("\t")
        if not (tab and word.strip() and count.strip().isascii() and count.strip().isdigit()):
            raise RequestError(f"Row {row} of the word counts {str(path)!r} is {line!r}.", FORM)
        counts[word.strip()] += int(count)
    if not counts:
        raise RequestError(f"The word counts {str(path)!r} are empty.", FORM)
    return dict(counts)


def pieces_of_words(tokenizer: Any, counts: Mapping[str, int]) -> Counter[int]:
    """Return counts by token id: each piece of a word counts as often as the word does."""
    found: Counter[int] = Counter()
    if counts:
        skip = len(_ids(tokenizer, [ANCHOR])[0])
        for word, ids in zip(counts, _ids(tokenizer, [f"{ANCHOR} {word}" for word in counts]), strict=True):
            for piece in ids[skip:]:
                found[piece] += counts[word]
    return found


def pieces_of_texts(tokenizer: Any, texts: Iterable[str]) -> Counter[int]:
    """Return how often each token id occurs in whole texts, without the tokens that the tokenizer adds."""
    texts = list(texts)
    return Counter(piece for ids in (_ids(tokenizer, texts) if texts else []) for piece in ids)


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, truncation=False)["input_ids"]
