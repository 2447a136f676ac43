"""Another valid value for any field, found from its annotation: nothing here knows a plug-in or an option by name."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import CellError, RequestError
from bench.core.options import option_names
from bench.core.registry import ATTACKERS, Family
from bench.core.spec import Part
from bench.engine import plugins

A_FILE = str(Path(__file__).with_name("word_counts.tsv"))  # an option may name a file that must be there
WORDS = ("other", "0" * 40, "0" * 64, A_FILE)
GENERAL = (True, False, 1, 2, 0.5, *WORDS, ("other",), (0.5,), (1, 2), {"more": "0" * 64})


def _literals(hint: Any) -> Iterator[Any]:
    """Yield the values of every Literal inside an annotation."""
    if typing.get_origin(hint) is typing.Literal:
        yield from typing.get_args(hint)
    elif typing.get_origin(hint) is not None:
        for inner in typing.get_args(hint):
            yield from _literals(inner)


def candidates(cls: type, name: str, value: Any) -> Iterator[Any]:
    """Yield what a field might hold instead of `value`; the class refuses most of it."""
    yield from _literals(typing.get_type_hints(cls, include_extras=True)[name])
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (value + 1, value * 2, value / 2, value - 1)
    elif isinstance(value, str):
        yield from (f"{value}x", f"{value} x")
    elif isinstance(value, tuple):
        yield from ((*value, "other"), (*value, *value), value[:-1])
        if all(isinstance(item, (int, float)) for item in value):
            yield tuple(item / 2 for item in value)
    elif isinstance(value, Mapping):
        yield {**value, "more": "0" * 64}
    yield from GENERAL


def another(cls: type, name: str, value: Any, make: Callable[[Any], Any]) -> Any:
    """Return the first of what `make` makes of other values that holds another one; None where there is none."""
    for candidate in candidates(cls, name, value):
        try:
            made = make(candidate)
        except (RequestError, CellError):
            continue
        if getattr(made, name) != value:
            return made
    return None


def other_spec(spec: Any, name: str, given: Mapping[str, Any]) -> Any:
    """Return a spec with one field changed, to the value given for it or else to one that is found.

    Raises:
        LookupError: none is found.
    """
    if name in given:
        return dataclasses.replace(spec, **{name: given[name]})
    found = another(type(spec), name, getattr(spec, name), lambda value: dataclasses.replace(spec, **{name: value}))
    if found is None:
        raise LookupError(f"{type(spec).__name__}.{name} could not be varied: give the test a value for it")
    return found


class Varied:
    """The plug-ins of a family as they stand in a cell of one model and recipe, and with one option changed."""

    def __init__(self, family: Family, model: Any, recipe: str = "released") -> None:
        self.family, self.model, self.recipe = family, model, recipe

    def plugin(self, name: str, options: Mapping[str, Any]) -> Any:
        """Return a plug-in with every open option filled in."""
        made = plugins.construct(self.family, name, options)
        return made.for_recipe(self.recipe) if self.family is ATTACKERS else made.for_model(self.model, self.recipe)

    def parts(self, name: str, option: str) -> tuple[Part, Part]:
        """Return the parts of a plug-in before and after one option is changed.

        Some options need another one beside them, so each single change is tried as the ground for it.

        Raises:
            LookupError: no other valid value is found.
        """
        for ground in self._grounds(name, option):
            before = self.plugin(name, ground)
            after = another(
                type(before),
                option,
                getattr(before, option),
                lambda value, ground=ground: self.plugin(name, {**ground, option: value}),
            )
            if after is not None:
                return tuple(plugins.part_of(self.family, plugin, name) for plugin in (before, after))
        raise LookupError(f"{name}.{option} could not be varied: is there any other valid value?")

    def _grounds(self, name: str, option: str) -> Iterator[dict[str, Any]]:
        plain = plugins.construct(self.family, name, {})
        yield {}
        for other in option_names(type(plain)):
            if other != option:
                for value in candidates(type(plain), other, getattr(plain, other)):
                    try:
                        self.plugin(name, {other: value})
                    except (RequestError, CellError):
                        continue
                    yield {other: value}
