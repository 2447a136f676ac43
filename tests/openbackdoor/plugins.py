"""Three small defenses with known answers, one for each way in which OpenBackdoor calls a defender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.example import Example
from bench.core.options import Text
from defenders.base import Defender

SEEN: list[tuple[Any, Any, Any]] = []  # what each call of `detect` or `correct` was given


def without(text: str, word: str) -> str:
    """Return the text without any occurrence of a word."""
    return " ".join(item for item in text.split() if item != word)


@dataclass(frozen=True)
class FlagsWord(Defender):
    """Flag the texts that contain a word."""

    name = "flags-word"

    word: Text = "cf"

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[int]:
        """Return 1 for each text with the word in it."""
        SEEN.append((model, clean_data, poison_data))
        return [int(self.word in example.text.split()) for example in poison_data]


@dataclass(frozen=True)
class DeletesWord(Defender):
    """Delete a word from every text at inference."""

    name = "deletes-word"
    correction = True

    word: Text = "cf"

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[Example]:
        """Return the examples without the word, in their order."""
        SEEN.append((model, clean_data, poison_data))
        return [Example(without(text, self.word), label) for text, label, _ in poison_data]


@dataclass(frozen=True)
class DropsWord(Defender):
    """Drop the training texts that contain a word."""

    name = "drops-word"
    pre = True

    word: Text = "cf"

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Sequence[Example]:
        """Return the examples that lack the word."""
        SEEN.append((model, clean_data, poison_data))
        return [example for example in poison_data if self.word not in example.text.split()]


PLUGINS = (FlagsWord, DeletesWord, DropsWord)
