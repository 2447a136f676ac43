"""Options: frozen dataclasses whose fields are validated when they are constructed.

A field is a constrained type (`Fraction`, `Count` ...); nonsense fails at construction with the
value, the rule and the nearest valid name. The content of the fields is the identity of the object.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, InstanceOf, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from bench.core.errors import RequestError, unknown

Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


def added(default: Any) -> Any:
    """Declare an option added after records exist: it stays out of the identity while it equals `default`."""
    return dataclasses.field(default=default, metadata={"added": True})


@functools.cache
def _adapters(cls: type) -> dict[str, TypeAdapter]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise RequestError(
            f"An annotation of {cls.__name__} cannot be read: {error}.", "Import the type where the class is written."
        ) from None
    return {
        field.name: _adapter(hints[field.name], f"{cls.__name__}.{field.name}") for field in dataclasses.fields(cls)
    }


def _adapter(hint: Any, option: str) -> TypeAdapter:
    # A field may hold another of our own frozen classes: pydantic then only checks that it is one.
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return TypeAdapter(InstanceOf[hint])
    try:
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        raise RequestError(
            f"{option} is declared as {inspect.formatannotation(hint)}, and no option can be of that type.",
            "Declare it as bool, int, float, str, Literal[...], tuple[...] or Mapping[...] of these, or by a type of"
            " bench.core.options (Count, Fraction ...); an array is made in a method, from such options.",
        ) from None


@functools.cache
def _defaults(cls: type) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(cls)}


def _checked(adapter: TypeAdapter, value: Any) -> Any:
    """Validate strictly, but take an int for a float and a list for a tuple."""
    return adapter.validator.validate_python(_tuples(value), strict=True)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Options:
    """Base of every spec: validates its fields on construction.

    Raises:
        RequestError: a field has the wrong type or lies outside its range, or is declared as what no option can be.
    """

    def __post_init__(self) -> None:
        self._validate()

    def _validate(self) -> None:
        for name, adapter in _adapters(type(self)).items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, _checked(adapter, value))
            except ValidationError as error:
                raise _refused(f"{label(self)}.{name}", value, error.errors()[0]) from None

    def identity(self) -> dict[str, Any]:
        """Return every option by name as plain JSON values, without later additions left at their default."""
        content = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("added") and value == field.default:
                continue
            content[field.name] = plain(value)
        return content


# By the type that pydantic gives an error, or its first word: what to write instead.
_REMEDIES = {
    "int": "Write a whole number, such as 3.",
    "float": "Write a number, such as 0.1.",
    "bool": "Write true or false.",
    "tuple": "Write a list: [a, b].",
    "string_type": "Write a text.",
    "string_unicode": "Write it in UTF-8: the locale LC_ALL=C.UTF-8 does so.",
    "string_pattern_mismatch": "Give a text of that form.",
}


def _refused(name: str, value: Any, error: Mapping[str, Any]) -> RequestError:
    """Return the error for a value that breaks a rule; of a list, the rule is that of the entry which breaks it."""
    item, rule = error["input"], error["msg"][:1].lower() + error["msg"][1:]
    kind = error["type"]
    remedy = _REMEDIES.get(kind) or _REMEDIES.get(kind.split("_")[0], "Give a value in range.")
    if kind == "literal_error":
        close = difflib.get_close_matches(str(item), re.findall(r"'([^']*)'", rule), n=1, cutoff=0.5)
        remedy = f"Did you mean {close[0]!r}?" if close else "Write one of these."
    if error["loc"] and rule.startswith("input "):
        rule = f"{item!r} {rule.removeprefix('input ')}"
    return RequestError(f"{name} is {value!r}: {rule}.", remedy)


def label(options: object) -> str:
    """Return the name to use for an options object in an error message."""
    return str(getattr(options, "name", None) or type(options).__name__)


def plain(value: Any) -> Any:
    """Return a value of JSON types only: tuples become lists, nested options become dicts."""
    if isinstance(value, Options):
        return value.identity()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def option_names(cls: type) -> tuple[str, ...]:
    """Return the names of the options of a class, in order of declaration."""
    return tuple(field.name for field in dataclasses.fields(cls) if field.init)


def build(cls: type, options: Mapping[str, Any], kind: str, name: str) -> Any:
    """Construct `cls` from options by name.

    Raises:
        RequestError: an option that the class does not have (with the nearest one), a wrong value, a missing one.
    """
    valid = option_names(cls)
    for key in options:
        if key not in valid:
            if not valid:
                raise RequestError(f"{kind} {name!r} has no options, so {key!r} cannot be set.", "Leave it out.")
            raise unknown(f"option of {kind} {name!r}", key, valid)
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in options
    ]
    if missing:
        raise RequestError(f"{kind} {name!r} lacks {', '.join(missing)}.", "Set every option that has no default.")
    return cls(**options)
