"""The options of OpenBackdoor's classes: the named parameters of their constructors, as validated fields of ours."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Collection, Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.core.seeding import digest
from bench.openbackdoor.shims import PACKAGE

SCALARS = (bool, int, float, str)


def constructor_fields(cls: type, left_out: Collection[str] = ()) -> list[tuple[str, Any, Any]]:
    """Return name, type and default of each parameter that the constructor of `cls` itself names.

    `Optional` is taken off, since None is no value that the code can use; a list becomes a tuple. Parameters of
    other types (the dictionaries of its TrojanLM), those without a default and those `left_out` are not options.
    """
    hints, fields = typing.get_type_hints(cls.__init__), []
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        kind = _kind(hints.get(name))
        if name in left_out or kind is None or parameter.default is parameter.empty:
            continue
        default = tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
        fields.append((name, kind, default))
    return fields


def _kind(hint: Any) -> Any:
    """Return the type of an option, None for what cannot be one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [item for item in typing.get_args(hint) if item is not type(None)]
        hint = inner[0] if len(inner) == 1 else None
    if hint in SCALARS:
        return hint
    if typing.get_origin(hint) is list and typing.get_args(hint)[0] in SCALARS:
        return tuple[typing.get_args(hint)[0], ...]
    return None


def options_class(name: str, base: type, cls: type, left_out: Collection[str], about: str) -> type:
    """Return a frozen dataclass derived from `base` whose fields are the constructor's options."""
    fields = [
        (option, kind, dataclasses.field(default=default))
        for option, kind, default in constructor_fields(cls, left_out)
    ]
    namespace = {"name": name, "theirs": cls, "__doc__": about, "__module__": base.__module__}
    return dataclasses.make_dataclass(
        cls.__name__, fields, bases=(base,), namespace=namespace, frozen=True, kw_only=True
    )


def constructor_arguments(options: Any) -> dict[str, Any]:
    """Return the values of the fields that the constructor of `options.theirs` takes; tuples become lists."""
    named = inspect.signature(type(options).theirs.__init__).parameters
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if field.name in named}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@functools.cache
def source_digest() -> Mapping[str, str]:
    """Return the digest of the package's own source files, for the keys of what it makes; read once per process."""
    root = Path(str(find_spec(PACKAGE).origin)).parent
    files = sorted(root.rglob("*.py"))
    return {PACKAGE: digest([[str(file.relative_to(root)), sha256(file.read_bytes()).hexdigest()] for file in files])}
