"""Plug-ins that hand back the wrong kind of thing, as a first attempt does: named as `tests.engine.mistaken:Class`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attackers.base import Attacker
from defenders.base import Defender


@dataclass(frozen=True)
class Shares(Defender):
    """Detect by how sure it is, where 0 or 1 is asked for."""

    name = "shares"

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[float]:
        """Return a share for each text."""
        return [0.7] * len(poison_data)


@dataclass(frozen=True)
class Silent(Defender):
    """Detect without an answer."""

    name = "silent"

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> None:
        """Forget to return the flags."""


@dataclass(frozen=True)
class Pair(Defender):
    """Give scores and threshold, and not the class that holds them."""

    name = "pair"

    def suspicion(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Return a tuple."""
        return np.zeros(len(poison_data)), 0.5


@dataclass(frozen=True)
class Texts(Defender):
    """Correct texts, and return nothing beside them."""

    name = "texts"

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[str]:
        """Return texts of three letters, which have as many items as an example."""
        return ["abc" for _ in poison_data]


@dataclass(frozen=True)
class Numbers(Defender):
    """Say by number which training rows to keep."""

    name = "numbers"
    pre = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Return positions."""
        return np.arange(len(poison_data))


@dataclass(frozen=True)
class Nothing(Defender):
    """Cleanse in place."""

    name = "nothing"
    pre = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> None:
        """Forget to return the rows."""


@dataclass(frozen=True)
class InPlace(Defender):
    """Repair in place."""

    name = "in-place"

    def repair(self, victim: Any, knowledge: Any) -> None:
        """Forget to return the victim."""
        victim.model.classifier.bias.data.zero_()


@dataclass(frozen=True)
class Hookless(Defender):
    """Have hooks, and keep them."""

    name = "hookless"

    def hooks(self, knowledge: Any) -> Any:
        """Forget to return them."""


@dataclass(frozen=True)
class Bare(Hookless):
    """Give a hook alone, with a method of another name."""

    name = "bare"

    def hooks(self, knowledge: Any) -> Any:
        """Return what has no `on_gradients`."""
        return [object()]


@dataclass(frozen=True)
class Forgetful(Attacker):
    """Insert a word."""

    name = "forgetful"

    def trigger(self, text: str, rng: Any) -> Any:
        """Forget to return the text."""


@dataclass(frozen=True)
class Words(Attacker):
    """Insert a word, and leave the text in words."""

    name = "words"

    def trigger(self, text: str, rng: Any) -> Any:
        """Return a list."""
        return ["cf", *text.split()]


@dataclass(frozen=True)
class TestOnly(Attacker):
    """Have texts for the test split alone."""

    name = "test-only"

    def texts(self, split: str, examples: Any, rows: Any, rng: Any) -> list[str | None]:
        """Return None for training rows."""
        return [None if split == "train" else f"cf {example.text}" for example in examples]
