"""The unit of data: OpenBackdoor's triple of text, label and poison flag."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Example(NamedTuple):
    """One labelled text; `poisoned` is 1 when an attack wrote it, and is hidden from every defense."""

    text: str
    label: int
    poisoned: int = 0


def blinded(examples: Iterable[tuple]) -> list[Example]:
    """Return the examples with every poison flag set to 0, in the same order."""
    return [Example(text, label, 0) for text, label, *_ in examples]
