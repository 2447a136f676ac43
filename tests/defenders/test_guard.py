"""Whatever a method of a defense is made of, it sees no poison flag and no test split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from defenders.base import BLINDED, Defender, Suspicion, is_guarded

POISONED = [("a cf", 1, 1), ("a b", 0, 0)]
BLIND = [("a cf", 1, 0), ("a b", 0, 0)]
SEEN: list[tuple[Any, Any]] = []  # what each call behind a guard was given


def look(clean_data: Any, poison_data: Any) -> Any:
    """Note what a method was given, and answer for each example."""
    SEEN.append((clean_data, poison_data))
    return [0] * len(poison_data)


def noisy(method: Callable) -> Callable:
    """Return the method in a decorator that sees what the method is called with."""

    @functools.wraps(method)
    def call(self: Any, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        look(clean_data, poison_data)
        return method(self, model, clean_data, poison_data)

    return call


class Plain(Defender):
    """Flags nothing, removes nothing."""

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look."""
        return look(clean_data, poison_data)


class WithoutGradients(Defender):
    """Decorated as authors do it."""

    @torch.no_grad()
    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look."""
        return look(clean_data, poison_data)

    @torch.inference_mode()
    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look."""
        return look(clean_data, poison_data)

    @torch.no_grad()
    def suspicion(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look."""
        return Suspicion(torch.tensor(look(clean_data, poison_data)).numpy(), 1.0)

    @torch.no_grad()
    def questions(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Generator:
        """Look."""
        yield look(clean_data, poison_data)


class Inherits(WithoutGradients):
    """Has nothing of its own."""


class Calls(WithoutGradients):
    """Calls the method that it overrides."""

    @torch.no_grad()
    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look, and let the other look too."""
        look(clean_data, poison_data)
        return super().detect(model, clean_data, poison_data)


class AroundAGuard(Plain):
    """Decorates the method of another defense, whose guard's attributes the decorator then carries."""

    detect = noisy(Plain.detect)


class Mixin:
    """No defense by itself."""

    @torch.no_grad()
    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look."""
        return look(clean_data, poison_data)


class Mixed(Mixin, Defender):
    """Has its method from a class that is no defense."""


class Static(Defender):
    """Has a static method."""

    @staticmethod
    def detect(model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look."""
        return look(clean_data, poison_data)


class OfTheClass(Defender):
    """Has a class method."""

    @classmethod
    def detect(cls, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Look."""
        assert cls is OfTheClass
        return look(clean_data, poison_data)


class Chosen(Defender):
    """Has a property that chooses what flags."""

    @property
    def detect(self) -> Callable:
        """Return what flags."""
        return lambda model, clean_data, poison_data: look(clean_data, poison_data)


@dataclass(frozen=True, slots=True)
class Slotted(WithoutGradients):
    """Is made twice, as dataclasses with slots are."""


OTHERS = (AroundAGuard, Mixed, Static, OfTheClass, Chosen, Slotted)


@pytest.mark.parametrize("cls", [Plain, WithoutGradients, Inherits, Calls, *OTHERS])
@pytest.mark.parametrize("method", BLINDED)
def test_flags_and_test_splits_are_kept_from_a_method(cls: type, method: str) -> None:
    SEEN.clear()
    found = getattr(cls(), method)(None, {"dev": POISONED, "test-clean": POISONED}, POISONED)
    list(found) if method == "questions" else found
    assert SEEN or getattr(cls, method) is getattr(Defender, method)
    assert all(seen == ({"dev": BLIND}, BLIND) for seen in SEEN)


def test_a_guard_stands_once_however_often_its_class_is_derived() -> None:
    assert Inherits.detect is WithoutGradients.detect
    assert is_guarded(Calls.detect) and not is_guarded(Calls.detect.__wrapped__)
    assert not is_guarded(Defender.detect)
